"""A signal sets a flag and an exit status."""

import os
import signal

import pytest

from experiments.runner.interruption import SIGNALS, Interruption


@pytest.fixture(autouse=True)
def handlers_as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_first_signal_is_recorded_and_second_kills(number, status):
    signal.signal(number, signal.default_int_handler)
    with Interruption() as stop:
        assert signal.getsignal(number) is signal.SIG_DFL  # nothing to save yet
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert signal.getsignal(number) is signal.SIG_DFL
    error = stop.interrupted(7)
    assert error.status == status
    assert str(error).startswith(f"stopped by {number.name} at step 7, ")


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

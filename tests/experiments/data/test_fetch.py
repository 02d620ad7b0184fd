"""`fetch` against a local server with all kinds of failures."""

import contextlib
import gzip
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.data.fetch import (
    RetryPolicy,
    fetch,
    user_cache,
)
from experiments.data.registry import Dataset, Digest, File
from experiments.schema import UserError
from tests.experiments.programs import mounted

BODY = b"To be, or not to be\n" * 1000
QUICK = RetryPolicy(attempts=3, timeout_s=0.5, backoff_s=0.01)


def digest_of(body: bytes) -> Digest:
    return Digest(len(body), hashlib.sha256(body).hexdigest())


def registry_of(*urls: str, name: str = "play.txt", stored: bytes = BODY, **entry) -> dict[str, Dataset]:
    fields = {"contents": None, "compress": False, "by_hand": ""} | entry
    file = File(name=name, stored=digest_of(stored), urls=urls, **fields)
    return {"plays": Dataset("plays", {name: file}, license="", citation="")}


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty user cache; no other folder is configured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GRU_JAX_DATA", raising=False)
    return tmp_path / "cache" / "gru_jax"


class TestDownload:
    def test_file_is_downloaded_once_to_the_cache(self, server, cache):
        registry = registry_of(server.serve("play.txt", BODY))
        path = fetch("plays", "play.txt", registry=registry, retry=QUICK)
        assert path == cache / "plays" / "play.txt"
        assert path.read_bytes() == BODY
        assert fetch("plays", "play.txt", registry=registry, retry=QUICK) == path
        assert server.asked["play.txt"] == 1
        assert everything_in(cache) == ["plays/play.txt"]

    @pytest.mark.parametrize("length", [0, "many"])
    def test_content_length_is_optional(self, length, server, cache):
        registry = registry_of(server.serve("play.txt", BODY, length=length))
        assert fetch("plays", "play.txt", registry=registry, retry=QUICK).read_bytes() == BODY

    def test_named_folder_and_nested_name(self, server, tmp_path):
        registry = registry_of(server.serve("a", BODY), name="raw/play.txt")
        path = fetch("plays", "raw/play.txt", tmp_path / "mine", registry=registry, retry=QUICK)
        assert path == tmp_path / "mine" / "plays" / "raw" / "play.txt"
        assert path.read_bytes() == BODY

    def test_data_dir_precedes_the_environment(self, server, tmp_path, monkeypatch):
        registry = registry_of(server.serve("a", BODY))
        monkeypatch.setenv("GRU_JAX_DATA", str(tmp_path / "env"))
        assert fetch("plays", "play.txt", registry=registry).is_relative_to(tmp_path / "env")
        assert fetch("plays", "play.txt", "", registry=registry).is_relative_to(tmp_path / "env")
        assert fetch("plays", "play.txt", tmp_path / "arg", registry=registry).is_relative_to(tmp_path / "arg")

    def test_temporary_failures_are_retried(self, server):
        registry = registry_of(server.serve("play.txt", BODY, failures=2))
        assert fetch("plays", "play.txt", registry=registry, retry=QUICK).read_bytes() == BODY
        assert server.asked["play.txt"] == 3

    def test_second_url_is_used_if_the_first_has_other_bytes(self, server):
        registry = registry_of(server.serve("other", b"x" * len(BODY)), server.serve("play.txt", BODY))
        assert fetch("plays", "play.txt", registry=registry, retry=QUICK).read_bytes() == BODY
        assert server.asked == {"other": 1, "play.txt": 1}

    def test_redirect_is_followed(self, server):
        server.serve("play.txt", BODY)
        registry = registry_of(server.redirect("moved", to="/play.txt"))
        assert fetch("plays", "play.txt", registry=registry, retry=QUICK).read_bytes() == BODY

    def test_plain_text_is_stored_compressed(self, server):
        url = server.serve("play.txt", BODY)
        registry = registry_of(
            url, name="play.txt.gz", stored=b"as others gzip it", contents=digest_of(BODY), compress=True
        )
        path = fetch("plays", "play.txt.gz", registry=registry, retry=QUICK)
        assert gzip.decompress(path.read_bytes()) == BODY
        assert fetch("plays", "play.txt.gz", registry=registry) == path
        assert server.asked["play.txt"] == 1

    def test_other_compression_of_the_same_contents_is_accepted(self, server):
        url = server.serve("play.gz", gzip.compress(BODY, compresslevel=1))
        registry = registry_of(url, name="play.gz", stored=gzip.compress(BODY, 9), contents=digest_of(BODY))
        assert gzip.decompress(fetch("plays", "play.gz", registry=registry).read_bytes()) == BODY

    def test_content_encoding_gzip_is_stored_unchanged(self, server):
        stored = gzip.compress(BODY, mtime=0)
        registry = registry_of(server.serve("play.gz", stored, encoding="gzip"), name="play.gz", stored=stored)
        assert fetch("plays", "play.gz", registry=registry).read_bytes() == stored

    def test_permissions_follow_the_umask(self, server, tmp_path):
        (tmp_path / "other").touch()
        path = fetch("plays", "play.txt", registry=registry_of(server.serve("play.txt", BODY)))
        assert path.stat().st_mode == (tmp_path / "other").stat().st_mode

    def test_archives_are_identified_by_their_contents(self, server):
        def archive(top: str, **members: bytes) -> bytes:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
                for name, body in members.items():
                    header = tarfile.TarInfo(f"{top}/recordings/{name}")
                    header.size = len(body)
                    tar.addfile(header, io.BytesIO(body))
            return buffer.getvalue()

        lines = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in (("a", b"1"), ("b", b"22")))
        contents = Digest(3, hashlib.sha256(lines.encode()).hexdigest())
        url = server.serve("good", archive("project-main", b=b"22", a=b"1"))
        registry = registry_of(url, name="x.tar.gz", stored=archive("project", a=b"1", b=b"22"), contents=contents)
        assert fetch("plays", "x.tar.gz", registry=registry).is_file()

        url = server.serve("bad", archive("project-main", b=b"22", a=b"9"))
        registry = registry_of(url, name="y.tar.gz", stored=archive("project", a=b"1", b=b"22"), contents=contents)
        with pytest.raises(UserError, match="expected the recorded bytes"):
            fetch("plays", "y.tar.gz", registry=registry)


class TestFailure:
    """Every failure raises one line with the file, its location and the reason, and leaves no files."""

    def refused(self, registry, cache, *words: str, data_dir=None) -> str:
        with pytest.raises(UserError) as caught:
            fetch("plays", "play.txt", data_dir, registry=registry, retry=QUICK)
        message = str(caught.value)
        place = str((data_dir or cache) / "plays" / "play.txt")
        for word in ("plays/play.txt", place, *words):
            assert word in message
        assert "\n" not in message
        assert everything_in(cache) == []
        assert not (data_dir or cache).joinpath("plays").exists()
        return message

    def test_wrong_checksum(self, server, cache):
        url = server.serve("play.txt", b"x" * len(BODY))
        self.refused(registry_of(url), cache, url, "expected the recorded bytes", digest_of(BODY).sha256)
        assert server.asked["play.txt"] == 1

    def test_cut_connection(self, server, cache):
        url = server.serve("play.txt", BODY[:5000], length=len(BODY))
        self.refused(registry_of(url), cache, url, "IncompleteRead(5000 bytes read, 15000 more expected)")
        assert server.asked["play.txt"] == QUICK.attempts

    def test_missing(self, server, cache):
        url = server.url("nowhere")
        self.refused(registry_of(url), cache, url, "404")
        assert server.asked["nowhere"] == 1

    def test_server_error_every_time(self, server, cache):
        url = server.serve("play.txt", BODY, failures=99)
        self.refused(registry_of(url), cache, url, "503")
        assert server.asked["play.txt"] == QUICK.attempts

    def test_silent_server(self, server, cache):
        url = server.stall("play.txt")
        self.refused(registry_of(url), cache, url, "timed out")

    def test_slow_server(self, server, cache):
        url = server.serve("play.txt", BODY, pause_s=0.2)
        registry = registry_of(url)
        slow = RetryPolicy(attempts=1, timeout_s=0.3, min_bytes_per_s=1e6)
        with pytest.raises(UserError, match="too slow"):
            fetch("plays", "play.txt", registry=registry, retry=slow)
        assert everything_in(cache) == []

    def test_offline(self, cache):
        with socket.socket() as listener:  # no server listens on this port
            listener.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/play.txt"
        self.refused(registry_of(url), cache, url, "refused", "--data_dir", "$GRU_JAX_DATA")

    def test_mistyped_folder_is_not_left_behind(self, server, tmp_path):
        with pytest.raises(UserError, match="404"):
            fetch("plays", "play.txt", tmp_path / "a" / "typo", registry=registry_of(server.url("gone")))
        assert not (tmp_path / "a").exists()

    def test_answer_longer_than_recorded(self, server, cache):
        url = server.serve("play.txt", BODY * 2)
        self.refused(registry_of(url), cache, "expected at most 20,000 bytes, got 40,000")
        url = server.serve("unannounced", BODY * 2, length=0)
        self.refused(registry_of(url), cache, "expected at most 20,000 bytes, got more")

    def test_every_url_is_reported(self, server, cache):
        urls = server.url("first"), server.serve("second", b"short")
        self.refused(registry_of(*urls), cache, *urls)

    def test_no_public_url(self, cache):
        registry = registry_of(by_hand="ask the author")
        self.refused(registry, cache, "ask the author")

    def test_gzip_bomb(self, server, cache):
        url = server.serve("play.txt", gzip.compress(bytes(10_000_000)))
        registry = registry_of(url, stored=bytes(20_000), contents=digest_of(BODY))
        with pytest.raises(UserError, match="expected the recorded bytes"):
            fetch("plays", "play.txt", registry=registry, retry=QUICK)
        assert everything_in(cache) == []

    @pytest.mark.faults
    def test_full_disk(self, server, cache, tmp_path):
        place = tmp_path / "small"
        place.mkdir()
        with mounted(place, "-t", "tmpfs", "-o", "size=16k", "tmpfs"):
            url = server.serve("play.txt", os.urandom(64_000))
            registry = registry_of(url, stored=bytes(64_000))
            self.refused(registry, cache, "No space left on device", data_dir=place)
            assert everything_in(place) == []

    @pytest.mark.faults
    def test_read_only_folder(self, server, cache, tmp_path):
        place = tmp_path / "fixed"
        place.mkdir()
        with mounted(place, "-t", "tmpfs", "-o", "ro", "tmpfs"):
            registry = registry_of(server.serve("play.txt", BODY))
            self.refused(registry, cache, "Read-only file system", data_dir=place)
            assert server.asked["play.txt"] == 0

    def test_folder_is_a_file(self, server, cache, tmp_path):
        place = tmp_path / "file"
        place.write_text("")
        registry = registry_of(server.serve("play.txt", BODY))
        self.refused(registry, cache, "cannot write", data_dir=place)


class TestCorruption:
    def test_cached_files_are_replaced_with_a_warning(self, server, cache):
        registry = registry_of(server.serve("play.txt", BODY))
        path = fetch("plays", "play.txt", registry=registry)
        path.write_bytes(BODY[:-1] + b"?")
        with pytest.warns(UserWarning, match=r"plays/play\.txt: expected the recorded file"):
            assert fetch("plays", "play.txt", registry=registry) == path
        assert path.read_bytes() == BODY
        assert server.asked["play.txt"] == 2

    def test_cached_files_stay_if_the_download_fails(self, server, cache):
        registry = registry_of(server.url("gone"))
        path = cache / "plays" / "play.txt"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        with (
            pytest.warns(UserWarning, match="downloading it again"),
            pytest.raises(UserError, match="could not be downloaded"),
        ):
            fetch("plays", "play.txt", registry=registry, retry=QUICK)
        assert path.read_bytes() == b"half"

    def test_files_in_a_user_folder_raise_and_stay(self, server, tmp_path):
        registry = registry_of(server.serve("play.txt", BODY))
        path = tmp_path / "mine" / "plays" / "play.txt"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
        with pytest.raises(UserError, match="expected the recorded file") as caught:
            fetch("plays", "play.txt", tmp_path / "mine", registry=registry)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == b"half"
        assert server.asked["play.txt"] == 0

    def test_file_that_changes_in_place_is_checked_again(self, tmp_path):
        path, registry = tmp_path / "plays" / "play.txt", registry_of("http://127.0.0.1:1/")
        path.parent.mkdir()
        path.write_bytes(BODY)
        os.utime(path, ns=(0, 0))
        assert fetch("plays", "play.txt", tmp_path, registry=registry) == path
        path.write_bytes(BODY.lower())
        with pytest.raises(UserError, match="expected the recorded file"):
            fetch("plays", "play.txt", tmp_path, registry=registry)

    def test_folder_in_place_of_the_file(self, tmp_path):
        (tmp_path / "plays" / "play.txt").mkdir(parents=True)
        with pytest.raises(UserError, match="cannot read"):
            fetch("plays", "play.txt", tmp_path, registry=registry_of())


class TestNames:
    @pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", ".", "..", "C:\\x", "a\\x", "a\0"])
    def test_names_outside_the_folder_raise(self, name, tmp_path):
        # Invalid even if a registry lists it.
        with pytest.raises(UserError, match="expected a plain name"):
            fetch("plays", name, tmp_path, registry=registry_of(name=name))
        with pytest.raises(UserError, match="expected a plain name"):
            fetch(name, "play.txt", tmp_path, registry={name: registry_of()["plays"]})

    def test_unknown_names_list_the_known_ones(self, tmp_path):
        with pytest.raises(UserError, match=r"dataset: expected one of plays, got 'songs'"):
            fetch("songs", "play.txt", tmp_path, registry=registry_of())
        with pytest.raises(UserError, match=r"file: expected one of play\.txt in plays, got 'song'"):
            fetch("plays", "song", tmp_path, registry=registry_of())

    @pytest.mark.parametrize("link", ["plays", "plays/play.txt"])
    def test_links_out_of_the_folder_raise(self, link, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "play.txt").write_bytes(BODY)
        inside = tmp_path / "inside"
        (inside / link).parent.mkdir(parents=True)
        (inside / link).symlink_to(outside if link == "plays" else outside / "play.txt")
        with pytest.raises(UserError, match="expected a file inside the data folder, got a link"):
            fetch("plays", "play.txt", inside, registry=registry_of())

    def test_data_folder_can_be_a_link(self, tmp_path):
        (tmp_path / "real" / "plays").mkdir(parents=True)
        (tmp_path / "real" / "plays" / "play.txt").write_bytes(BODY)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert fetch("plays", "play.txt", tmp_path / "link", registry=registry_of()).read_bytes() == BODY


@contextlib.contextmanager
def fetching(url: str, processes: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts processes that fetch one file and print its path."""
    program = textwrap.dedent(
        f"""
        import signal
        from experiments.data.fetch import fetch
        from experiments.data.registry import Dataset, Digest, File
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = File("play.txt", {digest_of(BODY)!r}, None, ({url!r},), False, "")
        print(fetch("plays", "play.txt", registry={{"plays": Dataset("plays", {{"play.txt": file}}, "", "")}}))
        """
    )
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(processes)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_two_processes_can_fetch_the_same_file(server, cache):
    with fetching(server.serve("play.txt", BODY, together=2), processes=2) as running:
        for process in running:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert out.strip() == str(cache / "plays" / "play.txt")
    assert (cache / "plays" / "play.txt").read_bytes() == BODY
    assert everything_in(cache) == ["plays/play.txt"]
    assert server.asked["play.txt"] == 2


def stopped_midway(server, cache: Path, number: int) -> list[str]:
    """Stops a download by a signal after its first bytes. Returns the remaining files."""
    with fetching(server.serve("play.txt", BODY, pause_s=30)) as (process,):
        deadline = time.monotonic() + 60
        while not everything_in(cache) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert everything_in(cache)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == -number
    return everything_in(cache)


def test_interrupted_download_leaves_nothing(server, cache):
    assert stopped_midway(server, cache, signal.SIGINT) == []
    assert not cache.exists()


def test_leftovers_of_killed_downloads_are_removed_after_a_day(server, cache):
    (left,) = stopped_midway(server, cache, signal.SIGKILL)
    assert left.endswith(".tmp")
    registry = registry_of(server.serve("play.txt", BODY))
    path = fetch("plays", "play.txt", registry=registry)
    assert everything_in(cache) == [left, "plays/play.txt"]  # another process may still write it
    os.utime(cache / left, (0, 0))
    path.unlink()
    fetch("plays", "play.txt", registry=registry)
    assert everything_in(cache) == ["plays/play.txt"]


def test_cache_without_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "gru_jax"

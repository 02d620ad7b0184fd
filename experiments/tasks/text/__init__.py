"""Character language models."""

TASKS = {"char_lm": "char_lm:CharLM", "ptb_char": "ptb_char:PTBChar"}

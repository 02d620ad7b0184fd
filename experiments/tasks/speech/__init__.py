"""Speech recognition: spoken digits, spelled words, speakers."""

TASKS = {"an4": "an4:An4", "fsdd": "fsdd:Fsdd", "japanese_vowels": "japanese_vowels:JapaneseVowels"}

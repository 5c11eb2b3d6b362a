"""Texts that are hard to tokenise, for the tests of both tokenisers."""

SAMPLES = {
    "empty": "",
    "prose": "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n",
    "contractions": "I'm you're he'll we've she'd it's can't 'twas I'LL 'S o'clock ''s'",
    "blanks": "a  b   c\t\td \n\n  e\r\n f\u00a0g\u3000h\x0b\x0c\x1c\x85i   ",
    "code": "def f(x):\n    return {k: v**2 for k, v in x.items()}  # 0x1F\n\tif a!=b: ++i;\n",
    "numbers": "1 22 333 4,444.5 ½ ² Ⅷ ١٢٣ १२३",
    "cjk": "東京タワーは高い。我爱北京天安门，한국어도 됩니다！",
    "emoji": "🙂🙃 👩‍👩‍👧‍👦 🇨🇭 ❤️ e\u0301 é ﷽ \u200b\ufeff",
    "scripts": "Γειά σου Κόσμε, Привет, שלום, مرحبا, नमस्ते, สวัสดี",
    "controls": "\x00\x01\x7f\x80\xad\xff \ufffd\U0010ffff\ue000",
    "special": "one<|endoftext|>two <|endoftext|><|endoftext|> three",
    "runs": "a" * 300 + " " * 50 + "!" * 70 + "ab" * 60,
}

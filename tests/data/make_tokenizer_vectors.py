#!/usr/bin/env python3
"""Makes tokenizer_vectors.json: texts and the ids llama.cpp gives them, for every pre-tokenizer.

    make_tokenizer_vectors.py SMALL.gguf tokenizer_vectors.json

SMALL.gguf is any file with a small byte-level vocabulary (the one in use has 768 tokens); its vocabulary goes into the
output. Needs the packages `gguf` and `llama-cpp-python`. Each setup below is written to a temporary file without
tensors and read by llama.cpp; `add_special` is on in every row, so what a setup adds by custom shows too.
"""

import ctypes
import json
import random
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp

# What each setup changes in the file. `tokens` and `types` are by id.
SETUPS = {
    "llama-bpe": {"pre": "llama-bpe"},
    "smollm": {"pre": "smollm"},
    "gpt-2": {"pre": "gpt-2"},
    "default": {"pre": "default"},
    # Overlapping special tokens, user-defined and unknown ones, spaces as a token; the file's word on BOS and EOS.
    "patched": {
        "pre": "llama-bpe",
        "tokens": {
            514: "<|a|>", 515: "<|a|><", 516: "|><|", 517: "<unk>", 522: "  ", 523: "wor", 524: "<0x41>",
            525: "<|im_end|>", 526: "", 527: "<reponame>", 528: "<|end|>", 529: "</s>", 530: "unused", 531: "don",
            532: "<|file_sep|>", 533: "<|message|>", 534: "ééé",
        },
        "types": {
            514: 4, 515: 3, 516: 3, 517: 2, 522: 4, 523: 4, 524: 6, 525: 1, 526: 1, 527: 4, 528: 3, 529: 1, 530: 5,
            531: 0, 532: 1, 533: 3, 534: 4,
        },
        "add_bos": False,
        "add_eos": True,
    },
}

HAND = """
|a| |  |   |    |x |x  |  x|   x   y    z|\\t|\\t\\t|\\n|\\n\\n|\\r\\n|\\r\\n\\r\\n x|\\n \\n|  \\n  |a\\nb|a\\n\\nb|a \\n b|a\\n  b|a  \\n\\n  b
Hello|Hello world|Hello, world!|hello   world|The quick brown fox jumps over the lazy dog.|ALL CAPS HERE|camelCaseWord snake_case kebab-case
I'm you're he's we've they'll I'd don't|I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T|i'M you'Re he'S we'Ve they'lL|'s|'S|'t|'re|'RE|'rE|'ll|'x|''s|' s|it''s|’s|rock 'n' roll|'d've|'Tis 'twas|'ſ|a'ſ
0|12|123|1234|12345|123456|1234567890|1 2 3|12 345 6789|3.14159|1,000,000|0x7f|1e-9|v1.2.3|2024-01-31|12:34:56|+1 (555) 010-9999|100%|$5.00|a1b22c333d4444|1/2|½|²³|Ⅳ|١٢٣٤|१२३४५|１２３|1２3４|٣a٤| 1|  1|  12345|-1|x=1;y=22;z=333
!|!!|!?|...|…|a.b.c|a, b; c: d|(a) [b] {c} <d>|"quoted"|“quoted”|‘q’|«q»|—|–|a—b|a – b|e.g.,i.e.|***|---|===|~~~|^^|`code`|```rust|a_b|__init__|#tag @user|&amp;|\\\\|\\|/path/to/file.txt|C:\\\\dir\\\\f|http://example.com/a?b=c&d=e#f|user@example.com|§|¶|©|™|€100|£|¥|°C|±|×|÷|≠|∑|√|∞|→|⇒|■|●|★|☃
é|É|naïve café|Ünïcödé|Straße|Ærøskøbing|¿Qué tal?|¡Hola!|São Paulo|Ελληνικά|Привет, мир!|Україна|שלום עולם|مرحبا بالعالم|नमस्ते दुनिया|ক খ গ|ภาษาไทย|ພາສາລາວ|မြန်မာ|ქართული|Հայերեն|አማርኛ|ᚠᛇᚻ|日本語|日本語のテキスト。|こんにちは世界|カタカナ|中文字符|你好，世界！|繁體中文|한국어|안녕하세요 세계|中 文|ｆｕｌｌ ｗｉｄｔｈ|、。「」|\u3000|a\u3000b|\u00a0|a\u00a0b|a\u00a0\u00a0b|\u2003x|\u200b|a\u200bb|\u2028|a\u2028b|\u0085|a\u0085b|\ufeff|\ufeffx|\u00ad|\ufffd
e\u0301|e\u0301a|n\u0303o|\u0301|a\u0301\u0302b|ﬁ|Ａ１|ⅷ|ª|º|ʰ|ǅ|ß|ſ|İ|ı|Ω|Å|\u0e33|\u0903|\u094d|\u20e3|1\u20e3|#\ufe0f\u20e3
😀|😀😀|a😀b|😀 😀|👍🏽|👨‍👩‍👧‍👦|🏳️‍🌈|🇫🇷🇩🇪|❤️|☺|🤖 robot|text🎉🎊text|😀1😀|(╯°□°)╯︵ ┻━┻|¯\\\\_(ツ)_/¯|𝐁𝐨𝐥𝐝|𝟏𝟐𝟑|𐍈|𠜎|\U000e0001|\U0010ffff|\ue000
def f(x):\\n    return x + 1\\n|for (int i = 0; i < n; i++) {\\n\\tsum += a[i];\\n}|if x != y && z >= 3 || !w:|let v: Vec<u8> = vec![0; 16];|<div class="a">b</div>|SELECT * FROM t WHERE id=42;|{"k": [1, 2.5, null, true]}|a->b::c|x**2 // y|#include <stdio.h>|\\t\\tif\\n\\t\\t\\telse|    four\\n        eight|\\n\\n\\n\\nx|x\\n\\n\\n\\n|  \\t \\n\\t  x|\\r|\\r\\r\\nx|a\\rb|.\\n\\n|!\\r\\n|,\\n x|?!\\n\\n\\ny|x \\n|x\\t\\n|x\\u000by|\\u000c|\\u0000|a\\u0000b|\\u0001\\u0002|\\u007f|\\u001b[31m
<|begin_of_text|>|<|begin_of_text|>Hi|Hi<|eot_id|>|<|start_header_id|>user<|end_header_id|>\\n\\nHi there<|eot_id|>|a <|eot_id|> b|<|eot_id|><|eot_id|>|<|eot_id|>\\n|\\n<|eot_id|>| <|eot_id|>|<|eot_id|  >|<|eot_id|<|eot_id|>|<<|eot_id|>>|<|EOT_ID|>|<|end_of_text|>|<|reserved_special_token_0|>|<|reserved_special_token_1|>x|<|reserved_special_token_249|>|<|reserved_special_token_2500|>|<|im_start|>system\\nYou are.<|im_end|>\\n|<s>hi</s>|[INST] x [/INST]
<|a|>|<|a|><|<|a|><|a|>|<|a|><|a|><|a|>|x<|a|>y|<|a|><|eot_id|>|<|a|> <|a|>|<|a<|a|>|<unk>|a<unk>b|world|word wor|sword|  wor  ld|   |     |a  b|a   b|<0x41>|A<0x41>|<|im_end|>|<|im_end|>x|<reponame>|x<reponame>y|<|end|>|</s>|unused|don|don't|I don|<|file_sep|>|<|message|>hi|éé|ééé|éééé|éééééé|[EMPTY_526]|x[EMPTY_526]y
Ġ|Ċ|aĠb|Âé|Ã©|Ġthe|the|Ġ Ġ|ĉ
supercalifragilisticexpialidocious|antidisestablishmentarianism|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|abababababababab|thethethe|ing ing ing|zzzzzz|Qwxz|the and of to in is that for it as with was on be at by
"""


def texts():
    """The texts, each once: those above and random mixtures."""
    out = [""]
    for line in HAND.strip("\n").split("\n"):
        for item in split_line(line):
            out.append(item)
    rng = random.Random(20240731)
    parts = [
        " ", "  ", "\n", "\t", "\r\n", "'", "'s", "'LL", "a", "the", "The", "Hello", "é", "ß", "日本", "한", "я", "ع", "1", "22",
        "333", "٣", "½", ".", ",", "!", "-", "$", "+", "=", "~", "|", "<", ">", "`", "_", "😀", "\u0301", "\u00a0", "\u3000",
        "<|eot_id|>", "<|a|>", "<", "\u200d", "№", "€", "\x00", "x1", "I", "'", "\"", "、", "\u0085",
    ]
    for _ in range(110):
        out.append("".join(rng.choice(parts) for _ in range(rng.randrange(2, 9))))
    return list(dict.fromkeys(out))


def split_line(line):
    """Cuts at single bars outside <|...|>, and reads the escapes."""
    items, item, i = [], "", 0
    while i < len(line):
        c = line[i]
        if c == "|" and not (line[i - 1 : i] == "<" or line[i + 1 : i + 2] == ">"):
            items.append(item)
            item = ""
        else:
            item += c
        i += 1
    items.append(item)
    read = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}
    done = []
    for item in items:
        text, i = "", 0
        while i < len(item):
            two = item[i : i + 2]
            if two in read:
                text, i = text + read[two], i + 2
            elif two == "\\u":
                text, i = text + chr(int(item[i + 2 : i + 6], 16)), i + 6
            else:
                text, i = text + item[i], i + 1
        done.append(text)
    return done


def write(source, path, setup):
    """A copy of the file's metadata, changed as the setup says, without tensors."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name == "tokenizer.ggml.pre":
            continue
        value, kinds = field.contents(), field.types
        if name == "tokenizer.ggml.tokens":
            value = [setup.get("tokens", {}).get(i, v) for i, v in enumerate(value)]
        if name == "tokenizer.ggml.token_type":
            value = [setup.get("types", {}).get(i, int(v)) for i, v in enumerate(value)]
        writer.add_key_value(name, value, kinds[0], sub_type=kinds[-1] if len(kinds) > 1 else None)
    writer.add_string("tokenizer.ggml.pre", setup["pre"])
    for key, name in (("add_bos", "tokenizer.ggml.add_bos_token"), ("add_eos", "tokenizer.ggml.add_eos_token")):
        if key in setup:
            writer.add_bool(name, setup[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def piece(vocab, token):
    """What llama.cpp prints for a token, special ones included."""
    room = ctypes.create_string_buffer(256)
    n = llama_cpp.llama_token_to_piece(vocab, token, room, 256, 0, True)
    return room.raw[:n]


def main(source, target):
    reader = gguf.GGUFReader(source)
    get = lambda key: reader.fields["tokenizer.ggml." + key].contents()
    rows = [{"text": text, "ids": [], "rows": []} for text in texts()]
    ends, pieces = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, setup in SETUPS.items():
            path = str(Path(folder) / f"{name}.gguf")
            write(source, path, setup)
            model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
            vocab = llama_cpp.llama_model_get_vocab(model._model.model)
            count = llama_cpp.llama_vocab_n_tokens(vocab)
            ends[name] = [i for i in range(count) if llama_cpp.llama_vocab_is_eog(vocab, i)]
            if name == "patched":
                pieces = {i: piece(vocab, i).hex() for i in range(count)}
            for row in rows:
                for special in (False, True):
                    ids = model.tokenize(row["text"].encode(), add_bos=True, special=special)
                    if ids not in row["ids"]:
                        row["ids"].append(ids)
                    row["rows"].append(row["ids"].index(ids))
    vocab = {
        "tokens": get("tokens"),
        "types": [int(t) for t in get("token_type")],
        "merges": get("merges"),
        "bos": int(get("bos_token_id")),
        "eos": int(get("eos_token_id")),
    }
    dump = lambda value: json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    with open(target, "w") as out:
        out.write('{"note":"made by make_tokenizer_vectors.py; rows: for each setup, which of ids it gives')
        out.write(' without and with parse_special",\n"vocab":' + dump(vocab) + ',\n"setups":' + dump(SETUPS))
        out.write(',\n"ends":' + dump(ends) + ',\n"patched_pieces":' + dump(pieces) + ',\n"texts":[\n')
        out.write(",\n".join(dump(row) for row in rows) + "\n]}\n")
    print(len(rows), "texts")


if __name__ == "__main__":
    main(*sys.argv[1:])

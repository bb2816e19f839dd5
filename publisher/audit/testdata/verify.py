"""Verifies the hashes of an audit log: python3 verify.py DIR. It needs nothing but Python."""
import glob, gzip, hashlib, json, sys

sha256 = lambda b: hashlib.sha256(b).hexdigest()
prev, lines = "0" * 64, 0
for path in sorted(glob.glob(sys.argv[1] + "/audit-*.jsonl*")):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        for number, line in enumerate(file, 1):
            sealed, rest = line.rstrip(b"\n").split(b',"hash":"', 1)
            content = rest[len('","event":') + 64 : -1]  # Nothing where the event is left out.
            says = json.loads(line)
            if says["hash"] != sha256(sealed) or says["prev"] != prev or content and says["sha256"] != sha256(content):
                sys.exit(f"{path} line {number} is not right")
            prev, lines = says["hash"], lines + 1
print(f"{lines} lines, the last has hash {prev}")

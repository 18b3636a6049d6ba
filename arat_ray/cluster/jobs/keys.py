"""What looks like a secret, by its name or by what is in it: keys, tokens, passwords, and the files that keep them.

It is a net with a fine mesh for mistakes, not a proof: what it stops is sent when it is named, and what it lets through
may be secret all the same. The shapes of tokens are those that their makers publish for secret scanning.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from unicodedata import normalize

_SECRET = re.compile(
    r"secret|credential|passw(?:or)?d|passphrase|kube_?c(?:on)?f(?:i)?g|netrc|npmrc|pypirc|pgpass|tfstate|tfvars"
    r"|key(?:store|tab|chain|ring)|truststore|secring|\.(?:kdbx?|ovpn)\b|(?:^|[\W_])(?:creds?|cookies?)(?:[\W_]|$)"
    r"|(?:api|auth|ssh|access|private|priv|deploy|master|host)[\W_]?(?:key|token)"
)
"""What says it wherever it stands in a name, also of source code."""
_KEYS = """
    bks dsa ecdsa ed25519 gpg jceks jks jwt key keys p12 p8 pem pfx pgp pk8 ppk pvk rsa token tokens vault wallet
"""
WORDS_OF_KEYS = frozenset(_KEYS.split())
"""Words that say it at the end of a word, in the names of files which are no source code; `.pub` is the public half."""
_NAMES = """
    *.env env env.[!y]* envrc boto boto.cfg s3cfg my.cnf dockercfg* dockerconfig* kaggle.json rclone.conf databrickscfg
    ngrok.yml shadow gshadow logins.json key[34].db krb5cc* identity service?account*.json serviceaccount*.json
    *adminsdk*.json kube.config kube_config msal_*.json
"""
NAMES = tuple(_NAMES.split())
FOLDERS = {"ssh", "gnupg", "gpg", "kube", "pki"}
SOURCES = {"py", "pyi", "ipynb", "md", "rst", "c", "cc", "cpp", "cu", "h", "hpp", "rs", "go", "js", "ts", "html", "css"}
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

CONTENTS = {
    "a private key": rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|---- BEGIN SSH2 ENCRYPTED [P]RIVATE|PuTTY-User-Key-File-\d"
    rb"|LS0tLS1CRUdJT[i]"  # the first words, in base64
    rb"|AGE-SECRET-KEY-[1]|BEGIN OpenVPN Static [k]ey|\A0\x82..\x02\x01[\x00\x03]0|\A0w\x02\x01\x01\x04 "
    rb"|\A(?:\xfe\xed\xfe\xed|\xce\xce\xce\xce|\x03\xd9\xa2\x9a)",
    "a key of AWS": rb"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])",
    "a token of GitHub or GitLab": rb"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bgl[a-z]{2,4}-[\w-]{20,}",
    "a token of Hugging Face": rb"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "a token of Slack": rb"\bxox[a-z]-[\w-]{10,}|\bxapp-\d-[\w-]{10,}|hooks\.slack\.com/services/T",
    "a key of Google": rb"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}|\b1//0[\w-]{30,}",
    "a service's key": rb"\bsk-(?=[\w-]{0,80}\d)[\w-]{20,}|\b[sr]k_(?:live|test)_\w{10,}|\bSG\.[\w-]{16,99}\.[\w-]{16}"
    rb"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-AgE[\w-]{16,}|\bdop_v1_\w{20,}|\bdckr_[a-z]+_[\w-]{16,}|\bhvs\.[\w-]{20,}|\bdapi[0-9a-f]{32}"
    rb"|\bgsk_\w{20,}|\br8_\w{20,}|\bwandb_v1_\w{16,}|\bglsa_\w{20,}|\bshpat_\w{20,}|\blin_api_\w{20,}"
    rb"|AccountKey=[\w+/]{40,}|[?&]sig=[\w%+/-]{20,}",
    "a key of Weights & Biases": rb"(?i:wandb)[^\n]{0,80}\b[0-9a-f]{40}\b",
    "a login of a web service": rb"(?i:authorization)[\"']?\s{0,9}[:=]\s{0,9}[\"']?"
    rb"(?i:bearer|basic|token)\s[\w.~+/=-]{8}",
    "a web key": rb'"d"\s{0,9}:\s{0,9}"[\w-]{20,}"',
    "an archive, which nobody looked into,": rb"\A.{257}ustar"
    rb"|\A(?:PK\x03\x04|\x1f\x8b|7z\xbc\xaf|\xfd7zXZ|BZh[1-9]1AY|Rar!\x1a|\x28\xb5\x2f\xfd)",
    "a signed token": rb"\beyJ[\w-]{10,999}\.eyJ[\w-]{10}",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@\"'<>{}$]{0,200}"
    rb":(?![A-Z_]{1,20}@)[^\s/@\"'<>{}$]{1,200}@",  # USER:PASSWORD is that of a text about it
    "a login of netrc": rb"(?m)^[ \t]{0,80}(?:machine\s{1,9}\S{1,200}|default)"
    rb"\s{1,9}(?:login|user)\s{1,9}\S{1,200}\s{1,9}password\s{1,9}\S",
    "a login of Docker": rb'"auths"\s*:\s*\{\s*"|"(?:auth|identitytoken)"\s*:\s*"[A-Za-z0-9+/=]{8,}"',
    "a kubeconfig": rb"\b(?:client-key-data|id-token):\s*\S|(?m:^kind:[ \t]*[\"']?Config\b)",
    "a Secret of Kubernetes": rb"(?m)^kind:[ \t]*[\"']?Secret\b",
    "a state of Terraform": rb'"terraform_version"\s*:',
    "cookies": rb"\A# (?:Netscape )?HTTP Cookie File",
}
"""What it is, and how it begins."""
_NAMED = (
    r"(?:secret|passw(?:or)?d|passphrase|api[_-]?key|(?:access|api|auth|refresh|oauth|bearer|session)[_-]?token"
    r"|(?:access|private|preshared|account|secret|encryption|signing|deploy)[_-]?key|credentials?)"
)
_BEFORE = r"""(?m)^[ \t-]{0,80}(?:(?:export|set|env|arg)\s{1,9})?["']?[\w./:-]{0,120}"""
_ASSIGNED = (
    rf"""{_NAMED}["']?\s{{0,9}}(?:=>|[=:])\s{{0,9}}[rbu]?["'][^\s"'<>{{}}$]{{6,500}}["']""",
    rf"""{_BEFORE}(?:{_NAMED}|(?:\b|_)token)(?:[_-]?(?:id|key))?["']?[ \t]{{0,9}}[=:]"""
    r"""[ \t]{0,9}(?=\S{0,500}\d)[^\s"'<>{}()\[\]$,]{6,500}(?:\s|$)""",
    r"""(?:\b|_)token["']?\s{0,9}[=:]\s{0,9}["'](?=[^"']{0,500}\d)[\w.~+/=-]{16,500}["']""",
    rf"""{_BEFORE}passw(?:or)?d["']?[ \t]{{0,9}}[=:][ \t]{{0,9}}(?!false|optional|string|self|passw)"""
    r"""[^\s"'<>{}()\[\]$,]{5,500}[ \t]{0,9}\r?$""",
    rf"<[\w:-]{{0,80}}{_NAMED}>[^<\s$]{{4,500}}</",
    r"""(?m)^\s{0,9}(?:export\s|env\s|arg\s)?(?-i:[A-Z0-9_]{0,60}(?:SECRET|PASSWORD|TOKEN|API_?KEY|ACCESS_KEY)[A-Z0-9_]{0,20})"""
    r"""(?<!_PATH)(?<!_FILE)(?<!_MODE)(?<!_URL)(?<!_NAME)(?<!_DIR)=["']?[^\s"'$<{(=]{4,500}""",
)
"""How settings give a value to a name that says it is one: in code, YAML, INI, JSON, XML, shell."""
_LONE_WORD = re.compile(rb"\s{0,9}(?=\S{0,512}\d)(?=\S{0,512}[A-Za-z])[\w.~+/=:-]{20,512}\s{0,9}")
_SETTINGS = [re.compile(pattern.encode(), re.IGNORECASE) for pattern in _ASSIGNED]
_KNOWN = {what: re.compile(pattern, re.DOTALL) for what, pattern in CONTENTS.items()}


def named_like_one(path: PurePosixPath) -> str | None:
    """Why a file looks secret by its name or by a folder's that holds it; None where nothing says so."""
    for folder in path.parts[:-1]:
        if _SECRET.search(_plain(folder)) or _plain(folder).lstrip("._") in FOLDERS:
            return f"its folder is called {folder}"
    name = _plain(path.name)
    return "its name" if _SECRET.search(name) or _is_of_keys(name) else None


def _is_of_keys(name: str) -> bool:
    suffix, bare = name.rpartition(".")[2], name.lstrip("._")
    if suffix in SOURCES or suffix == "pub":
        return False
    words = re.findall(r"[a-z0-9]+", name)
    return any(fnmatchcase(bare, pattern) for pattern in NAMES) or any(
        word in WORDS_OF_KEYS or word.endswith(("token", "tokens")) for word in words
    )


def holds_one(content: bytes) -> str | None:
    """What a content seems to hold; None where nothing of it looks secret."""
    if b"\0" in content and (found := holds_one(content.replace(b"\0", b""))):  # UTF-16 and UTF-32
        return found
    if found := known(content):
        return f"{found} in it"
    if any(pattern.search(content) for pattern in _SETTINGS):
        return "a secret by its name in it"
    return "nothing but one long word in it, as in a token's file" if _LONE_WORD.fullmatch(content) else None


def known(content: bytes) -> str | None:
    """What a content holds by its shape, whoever gives it a name."""
    return next((what for what, pattern in _KNOWN.items() if pattern.search(content)), None)


def _plain(name: str) -> str:
    """`AccessTokens.JSON ` -> access_tokens.json"""
    return _WORD_ENDS.sub("_", normalize("NFKC", name)).lower().strip()

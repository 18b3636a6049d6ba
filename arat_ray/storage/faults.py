"""What can be wrong with a bucket, in one line each: what it is, in the server's own words, and what to do.

obstore has a type for the answers that it acts on; what else went wrong stands only in the text of its errors.
"""

from __future__ import annotations

import re

from arat_ray.storage.address import Address
from arat_ray.text import line

ACCESS = "give AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or this machine a role with access"
REACH = "see whether it runs, and whether this machine reaches it"
WORDS_AT_MOST = 200

FAULTS = {
    "(?i)certificate|invalid peer|handshake": (
        "{server} is not trusted over TLS ({words}); correct its certificate or this machine's clock, or name the "
        "authority that signed it with SSL_CERT_FILE"
    ),
    "NoSuchBucket|ContainerNotFound": (
        "there is no bucket {bucket!r} at {server}, or it is not ours to see; make it first, or correct its name"
    ),
    "RequestTimeTooSkewed|RequestExpired": (
        "the clock of this machine is wrong ({words}); set it, with `timedatectl set-ntp true`"
    ),
    "Expired|TokenRefreshRequired|SSOTokenLoadError|UnauthorizedSSOToken": (
        "its keys have expired ({words}); renew them: `aws sso login`, which what is running takes up as well, or new "
        "AWS_* variables and another start, with --resume where a study was running"
    ),
    "NoCredentials|the keys' own service": f"there are no keys for it ({{words}}); {ACCESS}",
    "PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|without LOCATION|code: 301": (
        "the bucket is in another region ({words}); name it with AWS_REGION"
    ),
    "AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|Unauthenticated|code: 40[13]": (
        f"access is denied ({{words}}); {ACCESS}"
    ),
    "SlowDown|TooManyRequests|Throttl|RequestLimitExceeded|code: (429|503)": (
        "{server} asks to slow down ({words}); where that lasts, fewer trials at once ask less of it"
    ),
    "TimedOut|kind: Timeout": f"{{server}} does not answer within seconds; {REACH}",
    "HTTP error|dns error|kind: ": f"{{server}} does not answer ({{words}}); {REACH}",
    r"code: 5\d\d": "{server} is in trouble of its own ({words}); it is the server that is to be mended",
}
"""A pattern in the text of an error, and the line for it; the first that is found counts."""
MAY_PASS = ("{server} asks", "{server} does not answer", "{server} is in trouble")
"""How the lines begin of what may be over by itself soon."""


class BucketError(OSError):
    """What went wrong with a bucket, in one line; `passes` where it may be over soon."""

    def __init__(self, text: str, *, passes: bool) -> None:
        super().__init__(text)
        self.passes = passes


class ConflictError(OSError):
    """An object is not there in the version that was to be replaced."""


class NoConditionsError(OSError):
    """The server refuses conditional writes."""


def told(error: Exception, address: Address) -> OSError:
    """An error of obstore or boto3, in our words."""
    text = f"{type(error).__name__} {_without_names(str(error))}"
    if re.search("NotImplemented|status code: 501", text):
        return NoConditionsError(f"{address.uri}: the server refuses conditional writes ({_words(str(error))})")
    server = address.endpoint or f"the server of {address.scheme}://{address.bucket}"
    words = {"bucket": address.bucket, "server": server, "words": _words(str(error))}
    for pattern, sentence in FAULTS.items():
        if re.search(pattern, text):
            return BucketError(sentence.format(**words), passes=sentence.startswith(MAY_PASS))
    return BucketError(words["words"], passes=False)


def _without_names(text: str) -> str:
    """The text without addresses and names of objects, which may hold any word, but for those that keys come from."""
    text = re.sub(
        r"https?://(\S*/latest/(api/token|meta-data)|169\.254)\S*|POST REDACTED", "the keys' own service", text
    )
    return re.sub(r'https?://\S+|path: "[^"]*"|(for path|at location) .*?: ', "", text)


def _words(text: str) -> str:
    """The part of an error's text that says what happened: the server's code and message, or the innermost cause."""
    if code := re.search(r"<Code>([^<]*)</Code>", text):
        message = re.search(r"<Message>([^<]*)</Message>", text)
        words = f"{code[1]}: {message[1]}" if message else code[1]
    elif provider := re.search(r"credential provider: (.*)", text):
        words = provider[1]
    elif status := re.search(r"status code: (\d+[^:]*)", text):
        words = status[1]
    elif causes := re.findall(r'(?:message|error): "([^"]*)"', text):
        words = causes[-1]
    elif certificate := re.search(r"InvalidCertificate\(\s*(\w+)", text):
        words = f"its certificate: {certificate[1]}"
    else:
        words = text.splitlines()[0] if text else "no reason given"
    return line(words.strip())[:WORDS_AT_MOST]

"""What can be wrong with a bucket, in one line each: what it is, in the server's own words, and what to do.

obstore has a type for the answers that it acts on; what else went wrong stands only in the text of its errors.
"""

from __future__ import annotations

import re

from arat_ray.storage.address import Address
from arat_ray.text import line

ACCESS = "give AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or this machine a role with access"
EXPIRED = "Expired|TokenRefreshRequired|SSOTokenLoadError|UnauthorizedSSOToken"
DENIED = "AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|Unauthenticated|40[13] "
WORDS_AT_MOST = 200

FAULTS: tuple[tuple[str, str, bool], ...] = (
    ("NoSuchBucket", "there is no bucket {bucket!r} at {server}, or it is not ours to see; make it first, or correct "
     "its name", False),
    ("RequestTimeTooSkewed|RequestExpired", "the clock of this machine is wrong ({words}); set it, with "
     "`timedatectl set-ntp true`", False),
    (EXPIRED, "its keys have expired ({words}); renew them (`aws sso login`, or new AWS_* variables) and start "
     "again, with --resume where a study was running", False),
    ("169.254.169.254|latest/api/token|NoCredentials|Received None from", "there are no keys for it ({words}); "
     + ACCESS, False),
    ("PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|301 ", "the bucket is in another region "
     "({words}); name it with AWS_REGION", False),
    (DENIED, "access is denied ({words}); " + ACCESS, False),
    (r"SlowDown|TooManyRequests|Throttl|RequestLimitExceeded|429 |503 ", "{server} asks to slow down ({words}); where "
     "that lasts, fewer trials at once ask less of it", True),
    ("(?i)certificate|invalid peer|tls|ssl", "{server} is not trusted over TLS ({words}); correct its certificate, "
     "this machine's clock, or http:// and https:// in AWS_ENDPOINT_URL", False),
    ("TimedOut|kind: Timeout", "{server} does not answer within seconds; see whether it runs, and "
     "whether this machine reaches it", True),
    ("kind: Connect|dns error|error sending request|IncompleteMessage|kind: Request", "{server} does not answer "
     "({words}); see whether it runs, and whether this machine reaches it", True),
    (r"status code: 5\d\d", "{server} is in trouble of its own ({words}); it is the server that is to be mended", True),
)  # fmt: skip
"""A pattern in the error's text, the line for it, and whether it may pass by itself; the first that is found counts."""


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
    text = f"{type(error).__name__} {error}"
    if re.search("NotImplemented|status code: 501", text):
        return NoConditionsError(f"{address.uri}: the server refuses conditional writes ({_words(str(error))})")
    server = address.endpoint or f"the server of {address.scheme}://{address.bucket}"
    words = {"bucket": address.bucket, "server": server, "words": _words(str(error))}
    for pattern, sentence, passes in FAULTS:
        if re.search(pattern, text):
            return BucketError(sentence.format(**words), passes=passes)
    return BucketError(words["words"], passes=False)


def _words(text: str) -> str:
    """The part of an error's text that says what happened: the server's code and message, or the innermost cause."""
    if code := re.search(r"<Code>([^<]*)</Code>", text):
        message = re.search(r"<Message>([^<]*)</Message>", text)
        words = f"{code[1]}: {message[1]}" if message else code[1]
    elif status := re.search(r"status code: (\d+[^:]*)", text):
        words = status[1]
    elif causes := re.findall(r'(?:message|error): "([^"]*)"', text):
        words = causes[-1]
    elif kinds := re.findall(r"\b((?:invalid peer|certificate)[^\"\n]*)", text):
        words = kinds[-1]
    else:
        words = text.splitlines()[0] if text else "no reason given"
    return line(words.strip())[:WORDS_AT_MOST]

"""The library that asks the Hugging Face Hub, and the variables that decide whom it asks, and how."""

import os
from types import ModuleType
from urllib.parse import urlsplit

from ..errors import UsageError

_HUB = "https://huggingface.co"
#: What leads a request astray, in upper case; proxies count in lower case too.
_VARIABLES = (
    *("HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "PIP_PROXY", "PIP_INDEX_URL"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"),
)


def hub_library() -> ModuleType:
    """huggingface_hub, which takes a second to import.

    Raises:
        UsageError: it reads a variable that can't be.
    """
    try:
        import huggingface_hub.constants
    except ValueError as error:
        named = [name for name in os.environ if name.startswith("HF_")]
        raise UsageError(
            f"a variable of huggingface_hub is not valid: {error}", f"Correct it: {', '.join(sorted(named))}."
        ) from None
    return huggingface_hub


def endpoint() -> str:
    """The address of the hub: HF_ENDPOINT, unless it is empty.

    Raises:
        UsageError: it is no http address.
    """
    given = os.environ.get("HF_ENDPOINT", "").strip()
    try:
        parts = urlsplit(given)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if given and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise UsageError(f"HF_ENDPOINT is not an http address: {given}", "Write https://HOST, or unset it.")
    return given.rstrip("/") or _HUB


def network_hint() -> str:
    """Where to look when a request failed: the variables that are set are named, not shown."""
    named = sorted(name for name, value in os.environ.items() if name.upper() in _VARIABLES and value)
    return f"Check the network, and these variables: {', '.join(named)}" if named else "Check the network"

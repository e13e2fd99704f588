"""The forms of secrets: regular expressions by kind, most of them from detect-secrets, with cues to find them fast."""

from __future__ import annotations

import re
from typing import NamedTuple

from detect_secrets.plugins.artifactory import ArtifactoryDetector
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.cloudant import CloudantDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.ibm_cloud_iam import IbmCloudIamDetector
from detect_secrets.plugins.ibm_cos_hmac import IbmCosHmacDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.softlayer import SoftlayerDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector


class Detector(NamedTuple):
    """Regular expressions for one kind of secret, and cues (ASCII, lower case) of which the line of each match has one.

    Instead of cues, a detector may have a `probe`, which finds each place to look at.
    """

    kind: str
    cues: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    probe: re.Pattern[str] | None = None


def _of(kind: str, cues: str, plugin: type[RegexBasedDetector], probe: str | None = None) -> Detector:
    patterns: tuple[re.Pattern[str], ...] = tuple(plugin.denylist)  # type: ignore[arg-type]  # a tuple or a list
    return Detector(kind, tuple(cues.split()), patterns, re.compile(probe) if probe else None)


def _own(kind: str, cues: str, *patterns: str) -> Detector:
    return Detector(kind, tuple(cues.split()), tuple(map(re.compile, patterns)))


# The cues of the kinds with short prefixes are longer than the prefixes, because most lines hold these.
DETECTORS = (
    _of("artifactory", "akc", ArtifactoryDetector),
    _of("aws", "a3t abia acca akia asia aws", AWSKeyDetector),
    _of("azure", "accountkey=", AzureStorageKeyDetector),
    _of("basic_auth", "://", BasicAuthDetector),
    _of("cloudant", "clou", CloudantDetector),
    _of("discord", "", DiscordBotTokenDetector, r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}"),
    _of("github", "ghp_ gho_ ghu_ ghs_ ghr_", GitHubTokenDetector),
    _of(
        "gitlab", "glpat- gldt- glft- glsoat- glrt- gr1348941 glcbt- glimt- glptt- glagent- gloas-", GitLabTokenDetector
    ),
    _of("ibm_cloud", "key pwd pass token", IbmCloudIamDetector),
    _of("ibm_storage", "secret", IbmCosHmacDetector),
    _of("jwt", "eyj", JwtTokenDetector),
    _of("mailchimp", "-us", MailchimpDetector),
    _of("npm", "_authtoken", NpmDetector),
    _of("openai", "t3blbkfj", OpenAIDetector),
    _of("pypi", "pypi-ag", PypiTokenDetector),
    _of("sendgrid", "sg.", SendGridDetector),
    _of("slack", "xox hooks.slack.com", SlackDetector),
    _of("softlayer", "softlayer", SoftlayerDetector),
    _of("square", "sq0csp-", SquareOAuthDetector),
    _of("stripe", "k_live_", StripeDetector),
    _of("telegram", ":aa", TelegramBotTokenDetector),
    _of("twilio", "", TwilioKeyDetector, r"(?:AC|SK)[a-z0-9]{32}"),
    _own("github", "github_pat_", r"github_pat_[A-Za-z0-9_]{50,}"),
    _own("anthropic", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{20,}"),
    _own("openai", "sk-proj- sk-svcacct-", r"sk-(?:proj|svcacct)-[A-Za-z0-9_-]{40,}"),
    _own("google", "aiza", r"AIza[A-Za-z0-9_-]{35}"),
    _own("hugging_face", "hf_", r"hf_[A-Za-z]{34}"),
    _own("npm", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _own("stripe", "k_test_ whsec_", r"[rs]k_test_[A-Za-z0-9]{24}", r"whsec_[A-Za-z0-9]{32}"),
)

# Values without quotes, in group 1: of variables with names in capitals, as in shells, `.env` files, Dockerfiles and
# CI configurations; of HTTP headers; and of curl's option for a name and a password. Each has cues, as a `Detector`.
UNQUOTED = (
    (
        re.compile(
            r"\b[A-Z0-9_]*(?:SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)"
            r"(?:=|:[ \t]+)([A-Za-z0-9+/=_.~-]{16,200})(?=[ \t]*(?:[#;\\].*)?$|[ \t]+[A-Z-])",
            re.MULTILINE,
        ),
        # The name without its first letters, and what follows it.
        ("secret=", "secret:", "token=", "token:", "password=", "password:", "passwd=", "key=", "key:"),
    ),
    (re.compile(r"\b(?:Bearer|Basic)[ \t]+([A-Za-z0-9+/=_.~-]{20,200})"), ("bearer ", "basic ")),
    (re.compile(r"\bcurl\b[^\n]*?[ \t](?:-u|--user)[ \t]+[\"']?[^\s:\"']+:([^\s\"'@]{8,200})"), ("curl ",)),
)

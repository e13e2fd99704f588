"""Work for modules of the standard library: each function uses much of one and returns its results."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).read_text(encoding="utf-8")


def decimals(module: Any) -> object:
    numbers = [module.Decimal(text) for text in ("0", "1.5", "-7", "123456.789", "1E-9", "Infinity", "NaN", "9E+20")]
    got: list[object] = []
    one = "sqrt exp ln log10 logb next_minus next_plus to_eng_string as_tuple is_normal logical_invert canonical radix"
    two = "compare quantize remainder_near max min max_mag min_mag next_toward same_quantum scaleb compare_total"
    more = "logical_and logical_or logical_xor rotate shift compare_signal compare_total_mag copy_sign"
    with module.localcontext() as context:
        context.traps = dict.fromkeys(context.traps, False)
        context.prec = 12
        for number in numbers:
            got += (str(getattr(number, name)()) for name in one.split())
            got += (format(number, style) for style in ("", ".3f", ">20,.2f", "e", "010.1%", "g"))
        for left, right in itertools.product(numbers, repeat=2):
            got += (str(getattr(left, name)(right)) for name in (two + " " + more).split())
            got += map(str, (left + right, left - right, left * right, left / right, left // right, left % right))
            got += map(
                str, (left == right, left.fma(right, left), context.power(left, right), context.divmod(left, right))
            )
    return got


def addresses(module: Any) -> object:
    texts = (
        '"A. B" <a.b@example.com>, Group: c@d.org, e@[1.2.3.4];, =?utf-8?q?caf=C3=A9?= <f@g.h>',
        "text/plain; charset=utf-8; name*0*=us-ascii'en'a%20b; name*1=c",
        'attachment; filename="a b.txt"; size=3 (comment (nested))',
        "<12.34@host.example> (x)",
        "1.0 (first) . 2",
    )
    got = []
    for text in texts:
        for name in (
            *("get_address_list", "get_mailbox_list", "get_unstructured", "get_phrase", "get_local_part", "get_msg_id"),
            *(
                "parse_mime_version",
                "parse_content_type_header",
                "parse_content_disposition_header",
                "parse_message_id",
            ),
            *("get_domain", "get_obs_local_part", "get_word", "get_mailbox", "get_angle_addr", "parse_mime_parameters"),
        ):
            try:
                result = getattr(module, name)(text)
            except (module.errors.HeaderParseError, IndexError) as error:
                got.append(str(error))
                continue
            token = result[0] if isinstance(result, tuple) else result
            got += (token.ppstr() if hasattr(token, "ppstr") else repr(token), str(token))
    return got


def unparsed(module: Any) -> object:
    texts = [HERE, Path(module.__file__).read_text(encoding="utf-8")]
    trees = [module.parse(text) for text in texts]
    return [(module.unparse(tree), module.dump(tree, indent=1)) for tree in trees]


def arguments(module: Any) -> object:
    parser = module.ArgumentParser(prog="p", description="words " * 30, epilog="end")
    parser.add_argument("files", nargs="*", help="files " * 20)
    parser.add_argument("-v", "--verbose", action="count", default=0)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--one", type=int, choices=(1, 2))
    group.add_argument("--two", action="store_true")
    children = argparse_children(parser)
    lines = (["a", "b", "-vv"], ["--one", "2"], ["--one=1", "x"], ["--two", "-v"])
    return [
        parser.format_help(),
        children.format_help(),
        [sorted(vars(parser.parse_args(line)).items()) for line in lines],
    ]


def argparse_children(parser: Any) -> Any:
    other = type(parser)(prog="q")
    below = other.add_subparsers(title="commands", dest="command")
    below.add_parser("go", help="go on").add_argument("--far", nargs=2, metavar=("X", "Y"))
    other.parse_args(["go", "--far", "1", "2"])
    return other


def settings(module: Any) -> object:
    parser = module.ConfigParser(interpolation=module.ExtendedInterpolation())
    parser.read_string(
        "[DEFAULT]\nroot = /x\n[a]\npath = ${root}/y\n  more\nflag = yes\n[b]\nn: 3\n; c\nm = ${a:path}\n"
    )
    written = io.StringIO()
    parser.write(written)
    return [{name: dict(parser[name]) for name in parser}, parser.getboolean("a", "flag"), written.getvalue()]


def differences(module: Any) -> object:
    one, two = HERE.splitlines()[:60], HERE.replace("module", "unit").splitlines()[5:70]
    return [
        *(list(way(one, two)) for way in (module.unified_diff, module.context_diff, module.ndiff)),
        module.HtmlDiff(wrapcolumn=40).make_file(one, two, context=True),
        module.get_close_matches("appel", ["ape", "apple", "peach"]),
    ]


def tokens(module: Any) -> object:
    found = list(module.generate_tokens(io.StringIO(HERE).readline))
    return [list(map(tuple, found)), module.untokenize(found)]


def expressions(module: Any) -> object:
    patterns = (
        r"(?P<a>x+?)(?P=a)|[^a-z\d]{2,5}$",
        r"(?i:abc|abd)(?=x)(?<!y)\b",
        r"(a(b(c)?)*)+?(?(1)d|e)",
        r"(?x) a # b",
    )
    return [repr(module.parse(pattern)) for pattern in patterns]


def pickles(module: Any) -> object:
    value = {"a": [1, 2.5, None, True, "ü", b"x" * 300, (1, 2, 3, 4), {5}, frozenset({6})], 2**70: -1, "b": range(3)}
    return [(module._dumps(value, protocol), module._loads(module._dumps(value, protocol))) for protocol in range(6)]


def pages(module: Any) -> object:
    urls = ("http://u:p@h.example:80/a/../b;c?d=1&d=2#e", "//x/y", "mailto:a@b", "http://[::1]/%7Eé", "a/./b/../c")
    return [
        *(repr((module.urlsplit(url), module.urlparse(url).port, module.urldefrag(url))) for url in urls),
        *(module.urljoin(one, two) for one, two in itertools.product(urls, urls)),
        module.urlencode({"a b": ["ü", "/"], "c": 3}, doseq=True),
        module.parse_qs("a=1&a=2&b=%20", keep_blank_values=True),
    ]


def statistics(module: Any) -> object:
    data = [1.5, 2, 2, 3.25, 4, 8, 1, 5]
    names = "mean fmean geometric_mean harmonic_mean median median_low mode multimode stdev pvariance quantiles"
    normal = module.NormalDist(1, 2)
    return [
        *(getattr(module, name)(data) for name in names.split()),
        *(normal.cdf(2), normal.inv_cdf(0.3), normal.overlap(module.NormalDist(2, 1)), normal.quantiles(5)),
        *(module.linear_regression(data, data[::-1]), module.correlation(data, data[::-1])),
    ]


def layouts(module: Any) -> object:
    value = {"a": list(range(40)), "b": {"c": ("x" * 90, {1, 2}), "d": [{"e": "words " * 30}] * 2}, "f": b"z" * 200}
    return [module.pformat(value, width=width, compact=compact) for width in (20, 80) for compact in (False, True)]


def months(module: Any) -> object:
    text, page = module.TextCalendar(0), module.HTMLCalendar(6)
    return [
        text.formatyear(2024),
        page.formatyearpage(2023),
        list(text.itermonthdates(2024, 2)),
        text.yeardayscalendar(2024),
    ]


def networks(module: Any) -> object:
    net = module.ip_network("10.0.0.0/28")
    texts = ("192.168.0.1", "::ffff:1.2.3.4", "2001:db8::1", "fe80::1")
    return [
        *(
            str(each)
            for each in (*net.subnets(prefixlen_diff=2), *net.address_exclude(module.ip_network("10.0.0.4/30")))
        ),
        *(str((ip, ip.exploded, ip.is_private, ip.reverse_pointer)) for ip in map(module.ip_address, texts)),
        *map(str, module.collapse_addresses([module.ip_network("10.0.0.0/29"), module.ip_network("10.0.0.8/29")])),
        *map(str, module.summarize_address_range(module.ip_address("1.1.1.0"), module.ip_address("1.1.1.130"))),
    ]


WORKLOADS: dict[str, Callable[[Any], object]] = {
    "_pydecimal": decimals,
    "email._header_value_parser": addresses,
    "ast": unparsed,
    "argparse": arguments,
    "configparser": settings,
    "difflib": differences,
    "tokenize": tokens,
    "re._parser": expressions,
    "pickle": pickles,
    "urllib.parse": pages,
    "statistics": statistics,
    "pprint": layouts,
    "calendar": months,
    "ipaddress": networks,
}

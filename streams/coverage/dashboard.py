"""Render coverage reports as one HTML page that loads nothing from other hosts.

A short script fetches the page's body again and again, so the reader's place on the page is kept. Without scripts the
page reloads itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from schema.family import Family
from streams.coverage.grid import Grid, GridSquare, cell_grid
from streams.coverage.report import ledger_lines

REFRESH_S = 3

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a8f4f; --bad: #c0392b; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: .15rem .5rem; text-align: right; } th:first-child { text-align: left; }
.ok { color: var(--good); } .no { color: var(--bad); font-weight: 600; } .none { color: #8888; }
.sums { font-size: 1.1rem; } .columns { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
"""
# The page's security policy allows no style attributes, so each heat is a class.
_HEATS = 8
_STYLE += "".join(f".h{heat} {{ background: rgb(31 119 180 / {9 * heat}%); }}\n" for heat in range(1, _HEATS + 1))

_SCRIPT = """
const status = document.getElementById("status"), login = document.getElementById("login");
const families = document.getElementById("families"), token = document.getElementById("token");
async function refresh() {
  const kept = sessionStorage.getItem("feedmill-token");
  try {
    const answer = await fetch("fragment", kept ? {headers: {Authorization: "Bearer " + kept}} : {});
    login.hidden = answer.status !== 401;
    if (answer.status === 401) {
      sessionStorage.removeItem("feedmill-token");
      families.textContent = "";
      status.textContent = kept ? "this is not the token of the service" : "";
      return;
    }
    if (!answer.ok) throw new Error(answer.status);
    families.innerHTML = await answer.text();
    status.textContent = "";
  } catch (error) { status.textContent = "the coverage service does not answer: figures are old"; }
}
login.addEventListener("submit", event => {
  event.preventDefault();
  const given = token.value.trim();
  token.value = "";
  if (!/^[!-~]+$/.test(given)) { status.textContent = "a token has visible ASCII characters only"; return; }
  sessionStorage.setItem("feedmill-token", given);
  refresh();
});
setInterval(() => { if (login.hidden) refresh(); }, SECONDS * 1000);
refresh();
"""


def page(content: str, nonce: str) -> str:
    """Return the whole page around `content`, a `fragment`; if it is empty, the page asks for the token.

    `nonce` is the nonce of the response's Content-Security-Policy. The token stays in the tab's session storage.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Feedmill coverage</title>
<meta name="viewport" content="width=device-width">
<noscript><meta http-equiv="refresh" content="{REFRESH_S}"></noscript>
<style nonce="{nonce}">{_STYLE}</style></head>
<body><h1>Feedmill coverage</h1><p id="status" class="no" role="status"></p>
<form id="login" hidden><label>The service asks for its token (FEEDMILL_TOKEN):
<input id="token" type="password" autocomplete="off" required></label> <button>Show</button></form>
<main id="families">{content}</main>
<script nonce="{nonce}">{_SCRIPT.replace("SECONDS", str(REFRESH_S))}</script></body></html>
"""


def fragment(
    families: Mapping[str, Family], reports: Iterable[Mapping[str, Any]], troubles: Mapping[str, str] | None = None
) -> str:
    """Return the part of the page that changes: one section for each report.

    `troubles` has {family: why it is not folded}.
    """
    return "\n".join(_family(families[report["family"]], report, troubles or {}) for report in reports)


def _family(family: Family, report: Mapping[str, Any], troubles: Mapping[str, str]) -> str:
    verdict = ("ok", "=") if report["balanced"] else ("no", "≠")
    sums = (
        f'{report["rows_in"]:,} rows in <span class="{verdict[0]}">{verdict[1]}</span> '
        f"{report['rows_clean']:,} clean + {report['rows_rejected']:,} rejected + {report['rows_rerouted']:,} rerouted"
    )
    if report["rows_lost"]:
        sums += f' + <span class="no">{report["rows_lost"]:,} lost to retention</span>'
    warnings = []
    if family.name in troubles:
        warnings.append(f"figures are old: {troubles[family.name]}")
    warnings += ledger_lines(report)
    notes = "".join(f'<p class="no">{escape(line)}</p>\n' for line in warnings)
    return f"""<section><h2>{escape(family.name)}</h2>
{notes}<p class="sums">{sums}</p>
<p>{report["entries"]:,} raw records, {report["rows_augmented"]:,} rows augmented{_retracted(report)};
{_newest(report)}. {report["cells_covered"]:,} of {report["cells_possible"]:,} possible cells covered
({report["cells_total"]:,} in the full cross product), {report["avg_per_cell"]:,.1f} rows per cell,
{len(report["gaps_to_fill"]):,} gaps.</p>
<div class="columns">
<div><h3>Cells: {escape(" x ".join(family.cell_axes))}</h3>{_heat(family, report)}</div>
<div><h3>Quotas</h3>{_quotas(report["quotas"])}
<h3>Rejected, by reason</h3>{_table(("reason", "rows"), report["rejected_by_reason"].items())}
<h3>Rows in, by minute</h3>{_minutes(report["rows_per_minute"])}
<h3>Largest gaps</h3>{_gaps(report["gaps_to_fill"])}</div>
</div></section>"""


def _retracted(report: Mapping[str, Any]) -> str:
    """Return the part of a sentence that counts the retracted rows, if there are any."""
    return f", {report['rows_retracted']:,} clean rows retracted and not counted below" * bool(report["rows_retracted"])


def _newest(report: Mapping[str, Any]) -> str:
    return f"the newest of {escape(report['last_generated'])}" if report["last_generated"] else "none yet"


def _heat(family: Family, report: Mapping[str, Any]) -> str:
    grid = cell_grid(family, report["cells"])
    head = "".join(f"<th>{escape(name)}</th>" for name in (grid.corner, *grid.columns))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(_slot(grid, slot) for slot in line)}</tr>"
        for name, line in zip(grid.lines, grid.slots, strict=True)
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _slot(grid: Grid, slot: GridSquare) -> str:
    if not slot.possible and not slot.rows:
        return '<td class="none">·</td>'
    name = f"h{grid.heat(slot, _HEATS)}" if slot.rows else "no"
    return f'<td class="{name}" title="{slot.covered} of {slot.possible} cells covered">{slot.rows:,}</td>'


def _quotas(quotas: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        (quota["name"], quota["kind"], f"{quota['target']:g}", f"{quota['actual']:.4g}", "met" if quota["ok"] else "NO")
        for quota in quotas
    ]
    return _table(("quota", "kind", "target", "actual", "met"), lines)


def _minutes(rows: Mapping[str, int]) -> str:
    latest = list(rows.items())[-5:]
    return _table(("minute (UTC)", "rows"), [(start[11:16], f"{count:,}") for start, count in reversed(latest)])


def _gaps(gaps: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        (", ".join(f"{axis} {bin_}" for axis, bin_ in gap.items() if axis not in ("count", "deficit")), gap["deficit"])
        for gap in gaps[:10]
    ]
    return _table(("cell or bin", "missing"), lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(item))}</td>' for item in line)}</tr>" for line in lines)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{body}</table>" if body else "none"

"""The OpenAPI description as a page of plain HTML: no script, nothing from another host. Not for the description
itself, which FastAPI makes of engine/service.py."""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #8888;padding:.2rem .6rem;text-align:left}"
    "pre{overflow:auto;background:#8882;padding:1rem}"
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"


def docs_page(description: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description."""
    title = escape(description["info"]["title"])
    parts = [
        _operation(path, method, facts)
        for path, methods in description["paths"].items()
        for method, facts in methods.items()
    ]
    schemas = json.dumps(description.get("components", {}).get("schemas", {}), indent=1, ensure_ascii=False)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f"<p>{escape(description['info'].get('description', ''))} <a href=/openapi.json>openapi.json</a></p>"
        f"{''.join(parts)}<h2>Schemas</h2><pre>{escape(schemas)}</pre></html>"
    )


def _operation(path: str, method: str, facts: Mapping[str, Any]) -> str:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(facts.get('description', ''))}</p>"]
    content = facts.get("requestBody", {}).get("content", {})
    for kind, body in content.items():
        rows = "".join(_field(name, schema) for name, schema in body["schema"]["properties"].items())
        lines.append(f"<p>{escape(kind)}:</p><table><tr><th>field<th>what</tr>{rows}</table>")
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{escape(answer['description'])}</tr>"
        for status, answer in facts["responses"].items()
    )
    return "".join(lines) + f"<p>Answers:</p><table>{answers}</table>"


def _field(name: str, schema: Mapping[str, Any]) -> str:
    told = ", ".join(f"{key} {value}" for key, value in schema.items() if key != "items")
    return f"<tr><td><code>{escape(name)}</code><td>{escape(told)}</tr>"

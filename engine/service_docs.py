"""The OpenAPI description as a page of plain HTML for people: no script, nothing from another host. Not for the
description itself, which FastAPI makes of engine/service_routes.py and engine/service_schema.py."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

SAMPLE_ADDRESS = "http://127.0.0.1:8000"  # in the description's code samples; the page has its own address there
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:1.5rem auto;padding:0 1rem}"
    "h2{margin-top:2.5rem;border-top:1px solid #8888;padding-top:1rem}h3{margin-bottom:.4rem}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{border:1px solid #8888;padding:.3rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "td:first-child,th{overflow-wrap:normal}"
    "pre{overflow:auto;background:#8882;padding:.8rem;font-size:.85rem}"
    "@media(max-width:600px){body{font-size:15px;padding:0 .6rem}td,th{padding:.25rem .35rem;font-size:14px}}"
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"

NUMBERS = re.compile(r"\[([^][{}\"]+)]")  # a list of them in JSON
Schema = Mapping[str, Any]  # a JSON schema, as OpenAPI has them


def docs_page(description: Mapping[str, Any], address: str) -> str:
    """The page of an OpenAPI description. address: http://host:port of the service, as its reader calls it."""
    title, schemas = escape(description["info"]["title"]), description.get("components", {}).get("schemas", {})
    operations = [
        _operation(f"{method.upper()} {path}", facts, schemas, address)
        for path, methods in description["paths"].items()
        for method, facts in methods.items()
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{title}: API</title><style>{STYLE}</style><h1>{title}: API</h1>"
        f"<p>{escape(description['info'].get('description', ''))}</p>"
        "<p><a href=/>The page to try pictures on</a> · <a href=/openapi.json>openapi.json</a> for programs</p>"
        f"{''.join(operations)}</html>"
    )


def _operation(title: str, facts: Mapping[str, Any], schemas: Mapping[str, Schema], address: str) -> str:
    """A route: what it does, how it is called, its fields, its answer, its errors."""
    parts = [f"<h2><code>{escape(title)}</code></h2><p>{escape(facts.get('description', ''))}</p>"]
    for sample in facts.get("x-codeSamples", ()):
        source = sample["source"].replace(SAMPLE_ADDRESS, address)
        parts.append(f"<h3>{escape(sample['lang'])}</h3><pre>{escape(source)}</pre>")
    for kind, body in facts.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h3>Fields, <code>{escape(kind)}</code></h3>{_form_table(body['schema'])}")
    answers = {status: answer for status, answer in facts["responses"].items() if status < "400"}
    for answer in answers.values():
        content = answer.get("content", {}).get("application/json", {})
        shown = f"<pre>{escape(_json(content['example']))}</pre>" if "example" in content else ""
        objects = (_object(name, schemas[name]) for name in _reached(content.get("schema", {}), schemas))
        parts.append(f"<h3>Answer</h3>{shown}{''.join(objects)}")
    errors = {status: answer["description"] for status, answer in facts["responses"].items() if status not in answers}
    if errors:
        told = "<p>As <code>{&quot;error&quot;: &quot;one sentence&quot;}</code>: what was expected, what was got.</p>"
        parts.append(f"<h3>Errors</h3>{told}{_table(('status', 'when'), map(_escaped, errors.items()))}")
    return "".join(parts)


def _form_table(form: Schema) -> str:
    rows = []
    for name, schema in form["properties"].items():
        default = json.dumps(schema["default"]) if "default" in schema else schema.get("x-default", "needed")
        limits = f", {schema['minimum']:g} to {schema['maximum']:g}" if "maximum" in schema else ""
        what = f"{_kind(schema)}{limits}: {escape(schema['description'])}"
        rows.append((f"<code>{escape(name)}</code>", what, escape(default)))
    return _table(("field", "what", "default"), rows)


def _object(name: str, schema: Schema) -> str:
    """An object of an answer: what it is, and its fields."""
    rows = (
        (f"<code>{escape(field)}</code>", ": ".join(filter(None, (_kind(facts), escape(facts.get("description", ""))))))
        for field, facts in schema["properties"].items()
    )
    return f"<h4 id={name}>{name}</h4><p>{escape(schema.get('description', ''))}</p>{_table(('field', 'what'), rows)}"


def _json(value: Any) -> str:
    """JSON on indented lines, a list of numbers on one."""
    return NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", json.dumps(value, ensure_ascii=False, indent=2))


def _kind(schema: Schema) -> str:
    """What a value is, in words; an object as a link to its fields."""
    if "$ref" in schema:
        name = _name(schema["$ref"])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "items" in schema:
        kind = _kind(schema["items"])
        return f"list of {kind}" if "<" in kind else f"list of {kind}s"
    return "file" if schema.get("format") == "binary" else escape(schema["type"])


def _reached(schema: Schema, schemas: Mapping[str, Schema]) -> list[str]:
    """The objects that a schema is made of, the outermost first, each once."""
    names: list[str] = []
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop(0)
        if name not in names:
            names.append(name)
            waiting += _references(schemas[name])
    return names


def _references(schema: Any) -> Iterator[str]:
    """Names of the objects that a schema names."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield _name(schema["$ref"])
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _name(reference: str) -> str:
    """#/components/schemas/Problem -> Problem"""
    return reference.rpartition("/")[2]


def _escaped(cells: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(escape, cells))


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """titles and rows: HTML."""
    head = "".join(f"<th>{title}" for title in titles)
    return f"<table><tr>{head}</tr>{''.join('<tr><td>' + '<td>'.join(row) + '</tr>' for row in rows)}</table>"

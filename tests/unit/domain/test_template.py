"""Templates: what may stand in one, what it renders to, and how large that may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.template import (
    DEFAULT_LAYOUT,
    MAX_RENDERED,
    VARIABLES,
    Layout,
    Template,
    TemplateMetadata,
    layout_of,
    render,
)

VALUES = {
    "access_token": "canary-token",
    "token_type": "Bearer",
    "expires_at": "2026-11-24T07:00:00Z",
    "expires_in": "3600",
    "scope": "orders:read orders:write",
    "client_id": "shop",
}


def of_data(**data: str) -> Layout:
    return layout_of(Template(data=data))


def rendered(text: str, **values: str) -> str:
    return render(of_data(key=text), {**VALUES, **values})["key"].decode()


def refused(template: Template) -> Failure:
    with pytest.raises(Failure) as refusal:
        layout_of(template)
    assert refusal.value.reason is Reason.INVALID_SPEC
    return refusal.value


@pytest.mark.rule("TARGET-1")
@pytest.mark.parametrize("template", [None, Template(), Template(TemplateMetadata({"team": "shop"}))], ids=str)
def test_without_data_there_are_the_default_keys(template: Template | None) -> None:
    assert render(layout_of(template), VALUES) == {
        "access_token": b"canary-token",
        "token_type": b"Bearer",
        "expires_at": b"2026-11-24T07:00:00Z",
    }


@pytest.mark.rule("TARGET-1")
def test_data_replaces_the_default_keys() -> None:
    assert render(of_data(authorization="Bearer ${access_token}"), VALUES) == {"authorization": b"Bearer canary-token"}


@pytest.mark.rule("TARGET-3")
@pytest.mark.parametrize("variable", sorted(VALUES))
def test_each_variable_is_filled_in(variable: str) -> None:
    assert rendered(f"<${{{variable}}}>") == f"<{VALUES[variable]}>"


@pytest.mark.rule("TARGET-4")
def test_the_variables_are_these() -> None:
    assert frozenset(VALUES) == VARIABLES


@pytest.mark.rule("TARGET-3")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no dollar\n", "no dollar\n"),
        ("$$", "$"),
        ("$$$$", "$$"),
        ("$${access_token}", "${access_token}"),
        ("$$${client_id}", "$shop"),
        ("${client_id}$$", "shop$"),
        ("${client_id}${client_id}", "shopshop"),
        ("{access_token}", "{access_token}"),
        ("${client_id}{scope}", "shop{scope}"),
        ("№ ${client_id} ☂", "№ shop ☂"),
        ("$$" + "".join(f"${{{name}}}" for name in VALUES), "$" + "".join(VALUES.values())),
    ],
)
def test_text_renders_to(text: str, expected: str) -> None:
    assert rendered(text) == expected


@given(st.text())
def test_a_doubled_dollar_sign_is_one_whatever_stands_around_it(text: str) -> None:
    assert rendered(text.replace("$", "$$")) == text


@pytest.mark.rule("TARGET-3")
@given(st.text(st.sampled_from("$${}access_token"), max_size=40))
def test_what_is_filled_in_is_not_looked_at_again(value: str) -> None:
    assert (
        rendered("${scope}|${access_token}", scope="${access_token}", access_token=value) == "${access_token}|" + value
    )


@pytest.mark.rule("TARGET-3")
@pytest.mark.parametrize(
    "text",
    [
        "$",
        "$$$",
        "price: $5",
        "$access_token",
        "${",
        "${}",
        "${access_token",
        "${ access_token }",
        "${ACCESS_TOKEN}",
        "${Access_token}",
        "${refresh_token}",
        "${client_secret}",
        "${access_token}$",
        "${access_tokenn}",
        "${${access_token}}",
    ],
)
def test_after_a_dollar_sign_stands_another_or_a_known_variable(text: str) -> None:
    message = refused(Template(data={"good": "${access_token}", "bad": text})).message
    known = "${access_token}, ${client_id}, ${expires_at}, ${expires_in}, ${scope}, ${token_type}"
    assert message == f"spec.target.template.data: after a dollar sign stands another one, or one of {known}"


@pytest.mark.parametrize("key", ["", ".", "..", "..data", "...", "a/b", "a b", "a\n", "schlüssel", "k" * 254])
def test_keys_that_no_secret_takes_are_refused(key: str) -> None:
    assert refused(Template(data={key: "text"})).message.startswith("spec.target.template.data: keys")


@pytest.mark.parametrize("key", ["a", "-", "_", ".a", "a..b", "a.", "tuinly.env", "K" * 253])
def test_keys_that_a_secret_takes_are_taken(key: str) -> None:
    assert render(layout_of(Template(data={key: "text"})), VALUES) == {key: b"text"}


@pytest.mark.rule("TARGET-5")
@pytest.mark.parametrize("part", ["labels", "annotations"])
@pytest.mark.parametrize(
    "name",
    [
        "kubernetes.io/a",
        "kubectl.kubernetes.io/last-applied-configuration",
        "k8s.io/a",
        "sub.k8s.io/a",
        "tuinly.com/credential",
        "sub.tuinly.com/a",
        "sub.app.kubernetes.io/a",
        "app.kubernetes.io/managed-by",
    ],
)
def test_reserved_domains_are_refused(part: str, name: str) -> None:
    failure = refused(Template(TemplateMetadata(**{part: {"team": "shop", name: "a"}})))
    assert failure.message.startswith("spec.target.template.metadata: ")


@pytest.mark.rule("TARGET-5")
@pytest.mark.parametrize("part", ["labels", "annotations"])
@pytest.mark.parametrize(
    "name",
    [
        *("team", "managed-by", "k8s.io", "example.com/managed-by", "app.kubernetes.io/name"),
        *("notk8s.io/a", "tuinly.com.example/a"),
    ],
)
def test_other_names_are_taken_as_they_are(part: str, name: str) -> None:
    taken = layout_of(Template(TemplateMetadata(**{part: {name: "a"}})))
    assert {"labels": taken.labels, "annotations": taken.annotations}[part] == {name: "a"}


def test_the_digest_tells_templates_apart() -> None:
    templates = [
        None,
        Template(data={"a": "x"}),
        Template(data={"a": "y"}),
        Template(data={"b": "x"}),
        Template(data={"a": "x", "b": "y"}),
        Template(TemplateMetadata({"a": "x"})),
        Template(TemplateMetadata({}, {"a": "x"})),
        Template(TemplateMetadata({"a": "x"}, {"a": "x"})),
    ]
    assert len({layout_of(template).digest for template in templates}) == len(templates)


def test_the_digest_is_the_same_for_the_same_target() -> None:
    """The order of keys says nothing, and a template that asks for the default asks for nothing else."""
    one, other = {"a": "x", "b": "y"}, {"b": "y", "a": "x"}
    assert layout_of(Template(TemplateMetadata(one, one), one)) == layout_of(
        Template(TemplateMetadata(other, other), other)
    )
    assert (
        layout_of(Template(data=dict(DEFAULT_LAYOUT.data))).digest
        == layout_of(Template()).digest
        == DEFAULT_LAYOUT.digest
    )


@pytest.mark.rule("STATE-4")
def test_the_digest_does_not_change_from_process_to_process() -> None:
    """It stands in the targets' annotations: if it changed with a release, each target would be written anew."""
    assert DEFAULT_LAYOUT.digest == "cdbbd57403b034944b401361c360e4b0"
    metadata = TemplateMetadata({"team": "shop"}, {"note": "für $ äöü"})
    data = {".netrc": "password ${access_token} $$", "scope": "${scope}"}
    assert layout_of(Template(metadata, data)).digest == "f269070c4ec764e78d29f95d78923131"


@pytest.mark.rule("TARGET-7")
@pytest.mark.parametrize("count", [1, 3])
def test_a_rendering_may_have_512_kib(count: int) -> None:
    """Counted as it will be stored: bytes, names of keys among them."""
    assert MAX_RENDERED == 512 * 1024
    keys = [f"key{number}" for number in range(count)]
    wanted = of_data(**dict.fromkeys(keys, "ä${access_token}"))
    room = MAX_RENDERED - sum(len(key) + len("ä".encode()) for key in keys)
    fitting = {**VALUES, "access_token": "t" * (room // count)}
    assert len(render(wanted, fitting)) == count
    with pytest.raises(Failure) as refusal:
        render(wanted, {**fitting, "access_token": "t" * (room // count + 1)})
    assert refusal.value.reason is Reason.TARGET_REJECTED
    assert "512 KiB" in refusal.value.message
    assert "ttt" not in refusal.value.message

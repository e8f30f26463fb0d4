from __future__ import annotations

import pytest

from cdi_hpc.spec import names


@pytest.mark.parametrize("kind", ["vendor.com/gpu", "a/b", "A-1.b_c/d.e", "v/c9"])
def test_a_kind_is_a_vendor_and_a_class(kind):
    assert names.kind_complaint(kind) == ""
    assert "/".join(names.split_kind(kind)) == kind


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("", "not a kind"),
        ("gpu", "not a kind"),
        ("/gpu", "not a kind"),
        ("vendor/", "not a kind"),
        ("1vendor/gpu", "invalid vendor '1vendor'"),
        ("vendor-/gpu", "invalid vendor 'vendor-'"),
        ("vendor/gpu/x", "invalid class 'gpu/x'"),
        ("vendor/gpu\n", "invalid class 'gpu\\n'"),
        ("v\u00e9ndor/gpu", "invalid vendor"),
        ("vendor/\u0661gpu", "invalid class"),
    ],
)
def test_a_wrong_kind_is_told_what_is_wrong(kind, complaint):
    assert complaint in names.kind_complaint(kind)


@pytest.mark.parametrize("name", ["0", "a", "all", "0000:00:00.1", "GPU-1_x"])
def test_a_device_name_may_start_with_a_digit_and_hold_colons(name):
    assert names.device_complaint(name) == ""


@pytest.mark.parametrize("name", ["", "-a", "a-", ":", "a b", "a=b", "a,b", "a\n", "\u00e9", "\u0660"])
def test_a_wrong_device_name_is_refused(name):
    assert names.device_complaint(name)


def test_a_qualified_name_comes_apart_and_together_again():
    name = names.parse_qualified("vendor.com/gpu=0:1")
    assert name == names.QualifiedName("vendor.com", "gpu", "0:1")
    assert str(name) == "vendor.com/gpu=0:1"
    assert name.kind == "vendor.com/gpu"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gpu0", "not a qualified device name"),
        ("vendor.com/gpu", "not a qualified device name"),
        ("gpu=0", "not a kind"),
        ("vendor.com/gpu=", "the device name is empty"),
        ("vendor.com/gpu=a=b", "invalid device name 'a=b'"),
        ("=", "not a kind"),
    ],
)
def test_what_is_no_qualified_name_is_told_why(text, complaint):
    assert complaint in names.parse_qualified(text)


@pytest.mark.parametrize("key", ["a", "org.example/Key_1.x", "A.B/c", "x" * 63, f"{'d' * 253}/x"])
def test_annotation_keys_are_those_of_kubernetes(key):
    assert names.annotation_key_complaint(key) == ""


@pytest.mark.parametrize("key", ["", "/a", "a/", "a/b/c", "-a", "inva$$lid", "x" * 64, f"{'d' * 254}/x", "a..b/c"])
def test_a_wrong_annotation_key_is_noticed(key):
    assert names.annotation_key_complaint(key)

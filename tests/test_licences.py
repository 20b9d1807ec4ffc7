from benchmarks.licences import licence_of, listed, locked


def test_every_locked_package_is_listed_with_its_licence_and_no_other():
    """After a change of the lock: python -m benchmarks.licences."""
    assert list(listed()) == locked()
    assert all(licence.strip() for licence in listed().values())


def test_what_a_package_says_is_found():
    assert licence_of("numpy") and "BSD" in licence_of("numpy")
    assert licence_of("no-such-package-at-all") is None
    assert listed()["pytest"] == licence_of("pytest") == "MIT"

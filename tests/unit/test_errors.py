"""Every error can be shown to people, and every errno becomes the error that says what to do."""

import errno

import pytest

from backends.drivers import errors, oserrors


def all_subclasses(cls):
    return [cls, *(found for direct in cls.__subclasses__() for found in all_subclasses(direct))]


@pytest.mark.parametrize("cls", all_subclasses(errors.DriverError))
def test_every_driver_error_renders(cls):
    error = cls("Reading /x failed.", backend="h@b", operation="read", volume="v")
    assert str(error).startswith("[h@b] Reading /x failed.")
    assert str(cls("Short.", remedy="")) == "Short."
    assert str(cls("Short.", remedy="Do this.")) == "Short. Do this."
    assert error.code == error.code.lower()
    assert "{" not in str(error)


@pytest.mark.parametrize("cls", all_subclasses(errors.DriverError))
def test_every_error_decides_about_a_retry(cls):
    if cls is not errors.DriverError:
        assert issubclass(cls, errors.Transient) != issubclass(cls, errors.Permanent)


def test_code_is_the_name_in_snake_case():
    assert errors.NoSpace("x").code == "no_space"
    assert errors.ConnectionLost("x").code == "connection_lost"


@pytest.mark.parametrize(
    ("number", "cls"),
    [
        (errno.ENOSPC, errors.NoSpace),
        (errno.EDQUOT, errors.NoSpace),
        (errno.EIO, errors.CorruptData),
        (errno.EUCLEAN, errors.CorruptData),
        (errno.EROFS, errors.NotPermitted),
        (errno.EACCES, errors.NotPermitted),
        (errno.EPERM, errors.NotPermitted),
        (errno.ESTALE, errors.ConnectionLost),
        (errno.ENOTCONN, errors.ConnectionLost),
        (errno.ETIMEDOUT, errors.TimedOut),
        (errno.ENOENT, errors.NotFound),
        (errno.EEXIST, errors.AlreadyExists),
        (errno.EBUSY, errors.InUse),
        (errno.EMFILE, errors.Transient),
        (errno.ELOOP, errors.Permanent),
    ],
)
def test_errno_becomes_an_error_of_the_contract(number, cls):
    cause = OSError(number, "the kernel's words")
    with pytest.raises(cls) as caught, oserrors.os_errors_translated("Reading /x", backend="h@b", volume="v"):
        raise cause
    assert type(caught.value) is cls
    assert caught.value.__cause__ is cause
    assert caught.value.message == f"Reading /x failed: the kernel's words ({errno.errorcode[number]})."
    assert (caught.value.backend, caught.value.volume) == ("h@b", "v")


def test_an_oserror_without_errno_is_permanent():
    assert type(oserrors.translate_os_error(OSError("odd"), "Reading")) is errors.Permanent

from __future__ import annotations

import socket
import stat
import threading

import pytest

from holdtrue.errors import ServingError
from holdtrue.serving._listener import Sharing, obtain
from holdtrue.stack import free_ports


@pytest.fixture
def port():
    return free_ports(1)[0]


def share_once(sharing):
    sharing.socket.setblocking(True)
    thread = threading.Thread(target=sharing.give)
    thread.start()
    return thread


def test_a_second_replica_gets_the_socket_of_the_first(tmp_path, port):
    # Longer than the path of a Unix socket may be.
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    first = obtain(port, folder)
    sharing = Sharing(first, folder, "one")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    giving = share_once(sharing)
    second = obtain(port, folder)
    giving.join()
    sharing.close()
    first.close()
    with second, socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
        second.setblocking(True)
        taken, _ = second.accept()
        with taken:
            taken.sendall(b"here")
            assert caller.recv(10) == b"here"


def test_what_replicas_that_ended_left_is_cleared(tmp_path, port):
    gone = Sharing(socket.socket(), tmp_path, "gone")
    gone._listener.close()
    gone.socket.close()
    with obtain(port, tmp_path) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)
    assert not list(tmp_path.iterdir())


def test_a_socket_of_another_port_is_not_taken(tmp_path, port):
    with obtain(port, tmp_path) as first:
        sharing = Sharing(first, tmp_path, "one")
        giving = share_once(sharing)
        wanted = free_ports(1)[0]
        with obtain(wanted, tmp_path) as second:
            assert second.getsockname()[1] == wanted
        giving.join()
        sharing.close()


def test_a_socket_of_another_address_is_not_taken(tmp_path, port):
    with obtain(port, tmp_path, host="127.0.0.2") as first:
        sharing = Sharing(first, tmp_path, "one")
        giving = share_once(sharing)
        with obtain(port, tmp_path) as second:
            assert second.getsockname() == ("127.0.0.1", port)
        giving.join()
        sharing.close()


def test_a_port_in_use_is_named(tmp_path, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ServingError, match=f"port {port} is in use by another program"):
            obtain(port, tmp_path, timeout_s=0.2)

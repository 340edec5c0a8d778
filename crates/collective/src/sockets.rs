//! This process's own TCP sockets, found through `/proc/self/fd`.
//!
//! Gloo has no abort: a thread that waits for a peer waits until its timeout. But it notices a closed connection at
//! once. Shutting its connections down from outside is therefore the abort, and to Gloo it looks exactly like the
//! peer's death. A connection belongs to a group if one of its ends is the listening address of one of the group's
//! ranks: nobody else connects to those.
//!
//! Not here: which addresses those are (see `rendezvous`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{SockaddrStorage, getsockopt, sockopt};

/// The address of a network interface, such as `eth0`: the first of version 4, or else of version 6 that is not of the link only.
/// None when there is no such interface, or it has no address.
pub fn interface_address(interface: &str) -> Option<IpAddr> {
    let of_ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    let usable = |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let found = getifaddrs().ok()?.filter(|entry| entry.interface_name == interface);
    let addresses: Vec<IpAddr> = found.filter_map(|entry| of_ip(entry.address?)).filter(usable).collect();
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

/// The listening sockets: kernel identity (as `socket:[inode]`) and address.
pub(crate) fn listeners() -> io::Result<HashMap<OsString, SocketAddr>> {
    let mut found = HashMap::new();
    for (identity, socket) in sockets()? {
        if getsockopt(&socket, sockopt::AcceptConn) == Ok(true)
            && let Ok(address) = TcpListener::from(socket).local_addr()
        {
            found.insert(identity, address);
        }
    }
    Ok(found)
}

/// Shuts down, in both directions, every connection with one end at one of `addresses`.
pub(crate) fn shut_connections(addresses: &[SocketAddr]) -> io::Result<()> {
    let ours = |end: SocketAddr| addresses.iter().any(|a| (a.ip(), a.port()) == (end.ip(), end.port()));
    for (_, socket) in sockets()? {
        let connection = TcpStream::from(socket);
        // Fails for what is not a connected TCP socket: listeners, Unix sockets.
        if let (Ok(local), Ok(peer)) = (connection.local_addr(), connection.peer_addr())
            && (ours(local) || ours(peer))
        {
            // It fails only when the connection is down already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// A duplicate of every socket. A duplicate means the same socket whatever happens to the original descriptor
/// meanwhile, so what is checked is what is acted upon.
fn sockets() -> io::Result<Vec<(OsString, OwnedFd)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        let Ok(target) = fs::read_link(entry.path()) else { continue }; // closed meanwhile
        if !target.as_os_str().to_string_lossy().starts_with("socket:") {
            continue;
        }
        // SAFETY: used for one fcntl(F_DUPFD_CLOEXEC) and no longer; if the descriptor was closed meanwhile, that
        // call fails and nothing else happens.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(duplicate) = descriptor.try_clone_to_owned() {
            found.push((target.into_os_string(), duplicate));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pair() -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        (listener, dialled, accepted)
    }

    #[test]
    fn only_the_named_connections_are_shut_down_and_listeners_stay() {
        let (listener, mut dialled, mut accepted) = pair();
        let (_other_listener, other_dialled, mut other_accepted) = pair();
        let address = listener.local_addr().unwrap();

        shut_connections(&[address]).unwrap();

        assert_eq!(dialled.read(&mut [0; 1]).unwrap(), 0, "the dialling end is at its end");
        assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0, "the accepting end is at its end");
        io::Write::write_all(&mut &other_dialled, b"x").unwrap();
        assert_eq!(other_accepted.read(&mut [0; 1]).unwrap(), 1, "another connection still carries data");
        TcpStream::connect(address).expect("the listener still accepts");
    }

    #[test]
    fn an_interface_has_an_address() {
        assert_eq!(interface_address("lo"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(interface_address("no-such-interface"), None);
    }

    #[test]
    fn a_new_listener_is_seen_and_a_connection_is_not_one() {
        let before = listeners().unwrap();
        let (listener, dialled, _accepted) = pair();
        let after = listeners().unwrap();
        let fresh: Vec<_> = after.iter().filter(|(identity, _)| !before.contains_key(*identity)).collect();
        assert!(fresh.iter().any(|(_, address)| **address == listener.local_addr().unwrap()));
        assert!(after.values().all(|address| *address != dialled.local_addr().unwrap()));
    }
}

//! Meeting the other ranks. Rank 0 opens the rendezvous store and says where; the others come there; a gang of one needs none.
//!
//! Joining ends by itself or by a stop, except inside NCCL: while it connects, it cannot be broken off. There this process ends
//! when it takes too long, and the agent starts another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::OnceLock;
use std::time::Duration;

use lethe_collective::{Backend, Group, GroupOptions, Network, Place, Store, interface_address};
use lethe_domain::{ErrorCode, Failure, GangRole};
use nix::sys::signal::{self, Signal};
use tch::Device;

use super::deadline::Deadline;
use crate::error::{Error, Result};
use crate::work::Work;

/// Where ranks meet and how long they wait, by command line or environment.
#[derive(Debug, clap::Args)]
pub(crate) struct GangSettings {
    /// The address of this machine that the other ranks can reach. [default: the one from which it reaches --coordinator]
    #[arg(long = "gang-host", env = "LETHE_GANG_HOST", value_name = "ADDRESS")]
    host: Option<String>,
    /// Where the worker's coordinators are, HOST:PORT: nothing is sent there.
    #[arg(long = "coordinator", value_name = "HOST:PORT")]
    coordinators: Vec<String>,
    /// Found once.
    #[arg(skip)]
    route: OnceLock<String>,
    /// The network interface, such as eth0, to use instead of a fixed address. (NCCL has NCCL_SOCKET_IFNAME.)
    #[arg(long = "gang-interface", env = "LETHE_GANG_INTERFACE", value_name = "NAME")]
    interface: Option<String>,
    /// How long the rendezvous store and a collective wait for a rank that says nothing, such as 30s or 2m. libtorch's own
    /// default is half an hour.
    #[arg(
        long = "collective-timeout",
        env = "LETHE_COLLECTIVE_TIMEOUT",
        default_value = "30s",
        value_name = "DURATION",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
    /// Have a gang of one join a group like any other, so that one GPU exercises NCCL. For tests.
    #[arg(long = "join-alone", env = "LETHE_JOIN_ALONE", hide = true)]
    join_alone: bool,
}

impl GangSettings {
    /// Where Gloo listens, and the address to tell the others.
    fn network(&self) -> Result<(Network, String)> {
        // Empty as when a manifest leaves it open.
        let Some(name) = self.interface.as_deref().filter(|name| !name.is_empty()) else {
            let host = self.host.as_deref().filter(|host| !host.is_empty()).unwrap_or_else(|| self.routed());
            return Ok((Network::Host(host.to_owned()), host.to_owned()));
        };
        let address = interface_address(name).ok_or_else(|| {
            Error::refused(
                ErrorCode::Internal,
                format!("LETHE_GANG_INTERFACE is {name}: this machine has no such interface with an address"),
                "name one that `ip address` lists, or set LETHE_GANG_HOST instead",
            )
        })?;
        Ok((Network::Interface(name.to_owned()), address.to_string()))
    }
}

impl GangSettings {
    /// The address from which this machine reaches its coordinators, who are as far as the other ranks. Loopback where none can
    /// be told yet, or all are on this machine.
    fn routed(&self) -> &str {
        if let Some(route) = self.route.get() {
            return route;
        }
        match self.coordinators.iter().find_map(|address| source_address(address)) {
            Some(address) => self.route.get_or_init(|| address.to_string()),
            None => "127.0.0.1",
        }
    }
}

/// The address of this machine on the way to another.
fn source_address(to: &str) -> Option<IpAddr> {
    let mut found: Vec<SocketAddr> = to.to_socket_addrs().ok()?.collect();
    // Gloo's and the store's sockets speak IPv4 where they can choose.
    found.sort_by_key(SocketAddr::is_ipv6);
    found.into_iter().find_map(|to| {
        let any =
            if to.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        // Connecting a datagram socket asks for the route and sends nothing.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// What to do when rank 0's store is not where it says.
fn not_met(address: &str, error: impl Into<Error>) -> Error {
    let mut failure = Failure::from(error.into());
    if failure.code == ErrorCode::GangAborted {
        failure.hint = format!(
            "the next generation forms by itself; if it repeats, rank 0's machine is not to be reached at {address} from here: set LETHE_GANG_HOST or LETHE_GANG_INTERFACE on its worker"
        );
    }
    failure.into()
}

/// A seat in the gang, before all are there.
#[derive(Debug)]
pub(super) struct Meeting {
    network: Network,
    timeout: Duration,
    place: Place,
    /// None in a gang of one.
    store: Option<Store>,
}

impl Meeting {
    /// Opens the store and tells the agent (rank 0), or finds it.
    ///
    /// # Errors
    /// `GANG_ABORTED` when the store cannot be reached; [`Error::Stopped`].
    pub(super) fn open(work: &Work<'_>, role: &GangRole) -> Result<Self> {
        let (network, host) = work.gang.network()?;
        let timeout = work.gang.timeout;
        let place = Place {
            rank: role.rank.0 as usize,
            world: role.world as usize,
            generation: u64::from(role.generation.0),
        };
        let store = match (place.world, place.rank, &role.store) {
            (..=1, _, _) if !work.gang.join_alone => None,
            (..=1, _, _) | (_, 0, _) => {
                let store = Store::serve(&host, timeout)?;
                work.speaker.store_open(&work.lease, store.address());
                Some(store)
            }
            (_, _, Some(address)) => {
                let store = Store::connect(address, timeout, &work.stop.abort());
                // Where a stop ended the search, that is the reason.
                work.stop.check()?;
                Some(store.map_err(|error| not_met(address, error))?)
            }
            (_, rank, None) => {
                return Err(Error::internal(format!("rank {rank} was not told where the gang meets")));
            }
        };
        Ok(Self { network, timeout, place, store })
    }

    /// Waits for the others. A stop of this lease ends the group, and any wait for it.
    ///
    /// # Errors
    /// `GANG_ABORTED` when somebody does not come; [`Error::Stopped`].
    pub(super) fn join(self, work: &Work<'_>) -> Result<Group> {
        let Self { network, timeout, place, store } = self;
        let Some(store) = store else { return Ok(Group::loopback()) };
        let backend = match work.device {
            Device::Cuda(device) => Backend::Nccl { device },
            _ => Backend::Gloo,
        };
        let options = GroupOptions { timeout, network, abort: work.stop.abort(), ..GroupOptions::default() };
        let limit = 2 * options.join_timeout;
        let _deadline = match backend {
            Backend::Gloo => None,
            Backend::Nccl { .. } => Some(Deadline::start(limit, move || give_up(place, limit))?),
        };
        let group = Group::join(&store, backend, place, options)?;
        tracing::info!("joined: {place}");
        Ok(group)
    }
}

/// Ends this process, which waits for a peer inside NCCL and hears nothing else.
fn give_up(place: Place, limit: Duration) {
    tracing::error!(
        "{place}: NCCL did not connect within {limit:?}, and cannot be broken off while it tries: this process ends. If it \
         repeats, the ranks do not reach each other: set NCCL_SOCKET_IFNAME to the interface between them, and NCCL_DEBUG=INFO \
         to hear what it tries"
    );
    // Not an exit in order: that would wait for NCCL too.
    let _ = signal::raise(Signal::SIGKILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(coordinators: &[&str]) -> GangSettings {
        GangSettings {
            host: None,
            coordinators: coordinators.iter().map(|text| (*text).to_owned()).collect(),
            route: OnceLock::new(),
            interface: None,
            timeout: Duration::from_secs(1),
            join_alone: false,
        }
    }

    #[test]
    fn ranks_meet_where_the_coordinator_is_reached_from() {
        assert_eq!(settings(&[]).routed(), "127.0.0.1");
        assert_eq!(settings(&["127.0.0.1:7400"]).routed(), "127.0.0.1");
        // Another address of this machine is reached from itself.
        assert_eq!(settings(&["no-such-host.invalid:1", "127.0.0.9:7400"]).routed(), "127.0.0.1");
        let own = settings(&[]);
        let given = GangSettings { host: Some("10.1.2.3".to_owned()), ..own };
        assert_eq!(given.network().unwrap().1, "10.1.2.3");
    }

    #[test]
    fn a_store_that_is_not_there_names_the_setting() {
        let failure =
            Failure::from(not_met("127.0.0.1:4711", Error::refused(ErrorCode::GangAborted, "gone", "")));
        assert!(
            failure.hint.contains("127.0.0.1:4711") && failure.hint.contains("LETHE_GANG_HOST"),
            "{failure:?}"
        );
    }
}

//! Meeting the other ranks. Rank 0 opens the rendezvous store and says where; the others come there; a gang of one needs none.

use std::time::Duration;

use lethe_collective::{Backend, Group, GroupOptions, Network, Place, Store, interface_address};
use lethe_domain::{ErrorCode, GangRole};
use tch::Device;

use crate::error::{Error, Result};
use crate::work::Work;

/// Where ranks meet and how long they wait, by command line or environment.
#[derive(Debug, clap::Args)]
pub(crate) struct GangSettings {
    /// The address of this machine that the other ranks can reach.
    #[arg(long = "gang-host", env = "LETHE_GANG_HOST", default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: String,
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
}

impl GangSettings {
    /// Where Gloo listens, and the address to tell the others.
    fn network(&self) -> Result<(Network, String)> {
        // Empty as when a manifest leaves it open.
        let Some(name) = self.interface.as_deref().filter(|name| !name.is_empty()) else {
            return Ok((Network::Host(self.host.clone()), self.host.clone()));
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
            (..=1, _, _) => None,
            (_, 0, _) => {
                let store = Store::serve(&host, timeout)?;
                work.speaker.store_open(&work.lease, store.address());
                Some(store)
            }
            (_, _, Some(address)) => {
                let store = Store::connect(address, timeout, &work.stop.abort());
                // Where a stop ended the search, that is the reason.
                work.stop.check()?;
                Some(store?)
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
        let group = Group::join(&store, backend, place, options)?;
        tracing::info!("joined: {place}");
        Ok(group)
    }
}

//! Meeting the other ranks. Rank 0 opens the rendezvous store and says where; the others come there; a gang of one needs none.

use std::env;
use std::time::Duration;

use lethe_collective::{Backend, Group, GroupOptions, Network, Place, Store};
use lethe_domain::GangRole;
use tch::Device;

use crate::error::{Error, Result};
use crate::work::Work;

/// How long the store and a collective wait. libtorch's own default is half an hour.
const PATIENCE: Duration = Duration::from_secs(30);

/// The address of this machine that the other ranks can reach; 127.0.0.1 when it is not set.
const HOST: &str = "LETHE_GANG_HOST";

/// A seat in the gang, before all are there.
#[derive(Debug)]
pub(super) struct Meeting {
    host: String,
    place: Place,
    /// None in a gang of one.
    store: Option<Store>,
}

impl Meeting {
    /// Opens the store and tells the agent (rank 0), or finds it.
    ///
    /// # Errors
    /// `GANG_ABORTED` when the store cannot be reached.
    pub(super) fn open(work: &Work<'_>, role: &GangRole) -> Result<Self> {
        let host = env::var(HOST).unwrap_or_else(|_| "127.0.0.1".to_owned());
        let place = Place {
            rank: role.rank.0 as usize,
            world: role.world as usize,
            generation: u64::from(role.generation.0),
        };
        let store = match (place.world, place.rank, &role.store) {
            (..=1, _, _) => None,
            (_, 0, _) => {
                let store = Store::serve(&host, PATIENCE)?;
                work.speaker.store_open(&work.lease, store.address());
                Some(store)
            }
            (_, _, Some(address)) => Some(Store::connect(address, PATIENCE)?),
            (_, rank, None) => {
                return Err(Error::internal(format!("rank {rank} was not told where the gang meets")));
            }
        };
        Ok(Self { host, place, store })
    }

    /// Waits for the others. A stop of this lease ends the group, and any wait for it.
    ///
    /// # Errors
    /// `GANG_ABORTED` when somebody does not come; [`Error::Stopped`].
    pub(super) fn join(&self, work: &Work<'_>) -> Result<Group> {
        let Some(store) = &self.store else { return Ok(Group::loopback()) };
        let backend = match work.device {
            Device::Cuda(device) => Backend::Nccl { device },
            _ => Backend::Gloo,
        };
        let network = Network::Host(self.host.clone());
        let abort = work.stop.abort();
        let options = GroupOptions { timeout: PATIENCE, network, abort, ..GroupOptions::default() };
        let group = Group::join(store, backend, self.place, options)?;
        tracing::info!("joined: {}", self.place);
        Ok(group)
    }
}

//! Connections to coordinators, and the one way every call is made.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lethe_proto::LEADER_HEADER;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::address::parse;
use crate::error::root_cause;
use crate::{Backoff, Error};

/// How patient a client is.
#[derive(Debug, Clone)]
pub struct Options {
    /// For one connection to come about.
    pub connect_timeout: Duration,
    /// For one call to be answered, and for the next piece of a download to arrive.
    pub call_timeout: Duration,
    /// How long a call waits for the coordinators to elect a leader, and `watch` goes on trying while none can be reached.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            patience: Duration::from_secs(60),
        }
    }
}

/// A coordinator that hangs, or that the network has cut off, is noticed within their sum.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_PATIENCE: Duration = Duration::from_secs(3);

/// For the leader to answer what one that follows has answered already.
const FRESHER: Duration = Duration::from_secs(2);

/// Pauses while the coordinators have no leader.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A client of one coordinator, or of several that stand in for each other. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    coordinators: Vec<Coordinator>,
    /// Position of the one that answered last.
    current: AtomicUsize,
    /// The leader that one of them named, while calls to it succeed.
    leader: Mutex<Option<Coordinator>>,
    options: Options,
}

/// One address and its connection, which comes back by itself.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

impl Client {
    /// Connects to the first of these addresses that can be reached: `http://host:port` or `host:port`.
    ///
    /// # Errors
    /// [`Error::Address`] for one that is not an address, or none at all; [`Error::Unreachable`] when nobody answers.
    pub async fn connect(addresses: &[impl AsRef<str>], options: Options) -> Result<Self, Error> {
        let addresses: Vec<String> =
            addresses.iter().map(|text| parse(text.as_ref())).collect::<Result<_, _>>()?;
        let mut failure = None;
        for (place, address) in addresses.iter().enumerate() {
            match endpoint(address, &options)?.connect().await {
                Ok(channel) => return Self::around(place, channel, &addresses, options),
                Err(error) => failure = Some(later(failure, Error::unreachable(address, root_cause(&error)))),
            }
        }
        Err(failure.unwrap_or_else(none_given))
    }

    /// The client whose connection to the address at `place` is open already; the others are made when needed.
    fn around(place: usize, open: Channel, addresses: &[String], options: Options) -> Result<Self, Error> {
        let mut coordinators = Vec::with_capacity(addresses.len());
        for (other, address) in addresses.iter().enumerate() {
            let channel =
                if other == place { open.clone() } else { endpoint(address, &options)?.connect_lazy() };
            coordinators.push(Coordinator { address: address.clone(), channel });
        }
        Ok(Self {
            shared: Arc::new(Shared {
                coordinators,
                current: AtomicUsize::new(place),
                leader: Mutex::new(None),
                options,
            }),
        })
    }

    /// The address of the coordinator that answered last.
    pub fn address(&self) -> String {
        if let Some(leader) = self.leader() {
            return leader.address;
        }
        let place = self.shared.current.load(Ordering::Relaxed);
        self.shared.coordinators.get(place).map(|coordinator| coordinator.address.clone()).unwrap_or_default()
    }

    fn leader(&self) -> Option<Coordinator> {
        self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_leader(&self, leader: Option<Coordinator>) {
        *self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Makes one try at every coordinator in turn, the one that answered last first, until one of them gives an answer
    /// that another try would not change. Where one says who leads, that one is asked next. Nobody is asked twice: a leader
    /// that hangs costs one deadline, however many still name it.
    ///
    /// # Errors
    /// The refusal, or why nobody could be reached.
    pub(crate) async fn attempt<T, F>(&self, mut call: impl FnMut(Coordinator) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let coordinators = &self.shared.coordinators;
        let first = self.shared.current.load(Ordering::Relaxed);
        let in_turn = (first..first + coordinators.len()).map(|place| place % coordinators.len());
        let mut next = self.leader();
        let mut rest = in_turn.clone();
        let mut asked: Vec<String> = Vec::new();
        let mut failure = None;
        loop {
            let led = next.take();
            let named = led.is_some();
            let Some(coordinator) = led.or_else(|| rest.next().map(|place| coordinators[place].clone()))
            else {
                break;
            };
            let address = coordinator.address.clone();
            if asked.contains(&address) {
                continue;
            }
            let answer = call(coordinator.clone()).await;
            asked.push(address.clone());
            match answer {
                Ok(answer) => {
                    let place = in_turn.clone().find(|place| coordinators[*place].address == address);
                    self.shared.current.store(place.unwrap_or(first), Ordering::Relaxed);
                    self.set_leader(named.then_some(coordinator));
                    return Ok(answer);
                }
                Err(error) if error.retryable() => {
                    if let Error::NotLeader { leader: Some(leader) } = &error {
                        next = Some(self.named(leader)?);
                    }
                    failure = Some(later(failure, error));
                }
                Err(error) => return Err(error),
            }
        }
        self.set_leader(None);
        self.shared.current.store((first + 1) % coordinators.len().max(1), Ordering::Relaxed);
        Err(failure.unwrap_or_else(none_given))
    }

    /// The same, again and again while the coordinators elect a leader, as long as the client is patient.
    async fn attempt_patiently<T, F>(&self, mut call: impl FnMut(Coordinator) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let begun = Instant::now();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let answer = self.attempt(&mut call).await;
            let left = self.options().patience.saturating_sub(begun.elapsed());
            match answer {
                Err(error @ Error::NotLeader { .. }) if !left.is_zero() => {
                    tracing::debug!(%error, "waiting for a leader");
                    sleep(backoff.pause().min(left)).await;
                }
                answer => return answer,
            }
        }
    }

    /// The coordinator that one of ours named.
    fn named(&self, address: &str) -> Result<Coordinator, Error> {
        let address = parse(address)?;
        let known = self.shared.coordinators.iter().find(|known| known.address == address);
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let channel = endpoint(&address, self.options())?.connect_lazy();
        Ok(Coordinator { address, channel })
    }

    /// One call, with a deadline. For a stream the deadline is for its beginning. Where one that follows
    /// answers, and the leader can be reached, the leader's answer counts.
    pub(crate) async fn call<M, T, F>(
        &self,
        message: M,
        call: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<T, Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let ask = |Coordinator { address, channel }, deadline| {
            // On the heap: the future of a call that carries a job spec is large.
            let answer = Box::pin(call(channel, Request::new(message.clone())));
            async move { in_time(&address, deadline, answer).await }
        };
        let deadline = self.options().call_timeout;
        let answer = self.attempt_patiently(|coordinator| ask(coordinator, deadline)).await?;
        let leader = answer.metadata().get(LEADER_HEADER).and_then(|leader| leader.to_str().ok());
        if let Some(leader) = leader.and_then(|leader| self.named(leader).ok())
            && let Ok(fresh) = ask(leader.clone(), FRESHER.min(deadline)).await
        {
            self.set_leader(Some(leader));
            return Ok(fresh.into_inner());
        }
        Ok(answer.into_inner())
    }
}

/// Waits for a coordinator's answer, at most this long.
pub(crate) async fn in_time<T>(
    address: &str,
    deadline: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(Error::of_status(address, &status)),
        Err(_) => {
            Err(Error::unreachable(address, format!("no answer within {:.1} s", deadline.as_secs_f64())))
        }
    }
}

fn endpoint(address: &str, options: &Options) -> Result<Endpoint, Error> {
    let refuse = |error: tonic::transport::Error| Error::Address {
        address: address.to_owned(),
        problem: root_cause(&error),
    };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(refuse)?;
    let agent = concat!("lethe/", env!("CARGO_PKG_VERSION"));
    Ok(endpoint
        .user_agent(agent)
        .map_err(refuse)?
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(true))
}

/// The failure to report after two: of two silences both addresses, of a silence and an answer the answer.
fn later(earlier: Option<Error>, error: Error) -> Error {
    match (earlier, error) {
        (Some(Error::Unreachable { address: before, .. }), Error::Unreachable { address, reason }) => {
            Error::Unreachable { address: format!("{before}, {address}"), reason }
        }
        (Some(answered), Error::Unreachable { .. }) => answered,
        // Somebody who waits for a leader says more than somebody who cannot do anything now.
        (Some(led @ Error::NotLeader { .. }), Error::Unavailable { .. }) => led,
        (_, error) => error,
    }
}

fn none_given() -> Error {
    Error::Address { address: String::new(), problem: "none given; expected http://host:port".to_owned() }
}

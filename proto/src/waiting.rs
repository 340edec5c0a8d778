//! Why a job waits.

use lethe_domain::Waiting;

use crate::time::{ms, span_of_ms};
use crate::{ConversionError, v1};

impl From<Waiting> for v1::Waiting {
    fn from(waiting: Waiting) -> Self {
        use v1::waiting::Reason;
        let message = waiting.to_string();
        let of = |slots| v1::NoSlot { slots };
        let reason = match waiting {
            Waiting::NoWorkers => Reason::NoWorkers(v1::NoWorkers {}),
            Waiting::NoFreeSlot { slots } => Reason::NoFreeSlot(of(slots)),
            Waiting::NoSuitableSlot { slots } => Reason::NoSuitableSlot(of(slots)),
            Waiting::NoUsableSlot { slots } => Reason::NoUsableSlot(of(slots)),
            Waiting::OverQuota { owner, holds, quota, needs } => {
                Reason::OverQuota(v1::OverQuota { owner, holds, quota, needs })
            }
            Waiting::GangTooSmall { needs, free } => Reason::GangTooSmall(v1::GangTooSmall { needs, free }),
            Waiting::Backoff { ms } => Reason::Backoff(span_of_ms(ms)),
        };
        Self { message, reason: Some(reason) }
    }
}

impl TryFrom<v1::Waiting> for Waiting {
    type Error = ConversionError;

    fn try_from(waiting: v1::Waiting) -> Result<Self, ConversionError> {
        use v1::waiting::Reason;
        Ok(match waiting.reason.ok_or_else(|| ConversionError::missing("reason"))? {
            Reason::NoWorkers(v1::NoWorkers {}) => Self::NoWorkers,
            Reason::NoFreeSlot(v1::NoSlot { slots }) => Self::NoFreeSlot { slots },
            Reason::NoSuitableSlot(v1::NoSlot { slots }) => Self::NoSuitableSlot { slots },
            Reason::NoUsableSlot(v1::NoSlot { slots }) => Self::NoUsableSlot { slots },
            Reason::OverQuota(v1::OverQuota { owner, holds, quota, needs }) => {
                Self::OverQuota { owner, holds, quota, needs }
            }
            Reason::GangTooSmall(v1::GangTooSmall { needs, free }) => Self::GangTooSmall { needs, free },
            Reason::Backoff(pause) => Self::Backoff { ms: ms(pause, "backoff")? },
        })
    }
}

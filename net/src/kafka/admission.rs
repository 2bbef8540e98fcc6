//! Who may connect: bounds on connections, in all and by address, and on their rate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many connections are let in (RULES.md 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// At once, of all clients.
    pub connections_max: usize,
    /// At once, from one address.
    pub connections_per_ip_max: usize,
    /// In one second, from one address.
    pub accepts_per_ip_and_second_max: u32,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_ip_max: 4_000,
            accepts_per_ip_and_second_max: 1_000,
        }
    }
}

/// Why a connection is not let in. It is closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There are too many already.
    #[error("{0} connections are open, as many as are allowed")]
    Full(usize),
    /// There are too many from this address.
    #[error("{0} connections are open from this address, as many as are allowed")]
    FullForAddress(usize),
    /// This address connects too often.
    #[error("more than {0} connections in a second from this address")]
    TooFast(u32),
}

/// How many addresses are remembered beyond those that are connected: a second's worth of
/// newcomers. When there are more, those that have had their second are forgotten.
const ADDRESSES_MAX: usize = 16_384;

/// Within this time, what an address has begun is counted.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// The count of a node's client connections. Cheap to clone; all listeners share it.
#[derive(Debug, Clone)]
pub struct Admission {
    limits: AdmissionLimits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, OfAddress>,
}

#[derive(Debug)]
struct OfAddress {
    open: usize,
    /// When the second began in which `accepts` are counted.
    since: Instant,
    accepts: u32,
}

/// A connection's place; dropping it makes room.
#[derive(Debug)]
pub struct Permit {
    address: IpAddr,
    open: Arc<Mutex<Open>>,
}

impl Admission {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits,
            open: Arc::default(),
        }
    }

    /// How many are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.open).total
    }

    /// Lets a connection in, for as long as the permit lives.
    ///
    /// # Errors
    /// [`Refused`] names the bound.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<Permit, Refused> {
        let limits = &self.limits;
        let address = address.to_canonical();
        let mut open = lock(&self.open);
        if open.total >= limits.connections_max {
            return Err(Refused::Full(open.total));
        }
        if open.by_address.len() >= limits.connections_max + ADDRESSES_MAX {
            open.forget_idle(now);
        }
        let of_address = open.by_address.entry(address).or_insert(OfAddress {
            open: 0,
            since: now,
            accepts: 0,
        });
        if of_address.open >= limits.connections_per_ip_max {
            return Err(Refused::FullForAddress(of_address.open));
        }
        if of_address.is_over(now) {
            of_address.since = now;
            of_address.accepts = 0;
        }
        if of_address.accepts >= limits.accepts_per_ip_and_second_max {
            return Err(Refused::TooFast(of_address.accepts));
        }
        of_address.accepts += 1;
        of_address.open += 1;
        open.total += 1;
        Ok(Permit {
            address,
            open: self.open.clone(),
        })
    }
}

impl Open {
    /// Those without a connection whose second is over. Those that remain began within this
    /// second, which bounds them by the listeners' speed.
    fn forget_idle(&mut self, now: Instant) {
        self.by_address
            .retain(|_, of_address| of_address.open > 0 || !of_address.is_over(now));
    }
}

impl OfAddress {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= RATE_WINDOW
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.total -= 1;
        // The address is remembered, else whoever hangs up at once could connect at any rate.
        if let Some(of_address) = open.by_address.get_mut(&self.address) {
            of_address.open -= 1;
        }
    }
}

/// Every change is one step, so what a panic leaves is whole.
fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn admission(total: usize, per_ip: usize, rate: u32) -> Admission {
        Admission::new(AdmissionLimits {
            connections_max: total,
            connections_per_ip_max: per_ip,
            accepts_per_ip_and_second_max: rate,
        })
    }

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let (admission, now) = (admission(1, 1, 10), Instant::now());
        let permit = admission.admit(HERE, now).unwrap();
        assert_eq!(admission.admit(THERE, now).unwrap_err(), Refused::Full(1));
        drop(permit);
        assert_eq!(admission.connections(), 0);
        admission.admit(THERE, now).unwrap();
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let (admission, now) = (admission(3, 2, 10), Instant::now());
        let held: Vec<Permit> = (0..2)
            .map(|_| admission.admit(HERE, now).unwrap())
            .collect();
        assert_eq!(
            admission.admit(HERE, now).unwrap_err(),
            Refused::FullForAddress(2)
        );
        admission.admit(THERE, now).unwrap();
        drop(held);
    }

    #[test]
    fn hanging_up_does_not_reset_the_rate() {
        let (admission, now) = (admission(9, 9, 2), Instant::now());
        for _ in 0..2 {
            admission.admit(HERE, now).unwrap();
        }
        assert_eq!(admission.admit(HERE, now).unwrap_err(), Refused::TooFast(2));
        assert_eq!(admission.connections(), 0);
    }

    #[test]
    fn addresses_are_forgotten_when_there_are_many() {
        let (admission, now) = (admission(1, 1, 1), Instant::now());
        let later = now + RATE_WINDOW;
        let address = |count: usize| IpAddr::V4(std::net::Ipv4Addr::from_bits(count as u32));
        for count in 0..=ADDRESSES_MAX {
            admission.admit(address(count), now).unwrap();
        }
        assert_eq!(lock(&admission.open).by_address.len(), ADDRESSES_MAX + 1);
        admission.admit(address(0), later).unwrap();
        assert_eq!(lock(&admission.open).by_address.len(), 1);
    }

    #[test]
    fn an_address_is_the_same_in_both_families() {
        let (admission, now) = (admission(9, 1, 9), Instant::now());
        let _held = admission.admit(HERE, now).unwrap();
        let mapped = IpAddr::V6(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(
            admission.admit(mapped, now).unwrap_err(),
            Refused::FullForAddress(1)
        );
    }

    #[test]
    fn the_rate_is_bounded_by_the_second() {
        let (admission, now) = (admission(9, 9, 2), Instant::now());
        let _held: Vec<Permit> = (0..2)
            .map(|_| admission.admit(HERE, now).unwrap())
            .collect();
        assert_eq!(admission.admit(HERE, now).unwrap_err(), Refused::TooFast(2));
        admission.admit(HERE, now + Duration::from_secs(1)).unwrap();
    }
}

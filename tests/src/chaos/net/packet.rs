//! What the router looks at in a packet, and changes.

use std::net::Ipv4Addr;

/// The shortest IPv4 header.
const HEADER_BYTES_MIN: usize = 20;

/// Where an IPv4 packet goes; nothing if it is none.
pub(super) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    if packet.len() < HEADER_BYTES_MIN || packet[0] >> 4 != 4 {
        return None;
    }
    let bytes: [u8; 4] = packet[16..20].try_into().ok()?;
    Some(Ipv4Addr::from(bytes))
}

/// Flips one bit. One, because the checksums of IP, UDP and TCP notice that always: what they
/// would let pass is no fault that anybody above them is asked to survive.
pub(super) fn flip_a_bit(packet: &mut [u8], random: &mut fastrand::Rng) {
    let at = random.usize(..packet.len());
    packet[at] ^= 1 << random.u8(..8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut packet = vec![0; HEADER_BYTES_MIN];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 66, 0, 12]);
        packet
    }

    #[test]
    fn only_ipv4_goes_anywhere() {
        let mut packet = header();
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(10, 66, 0, 12)));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
    }

    #[test]
    fn one_bit_is_flipped() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let mut packet = header();
            flip_a_bit(&mut packet, &mut random);
            let bits = packet
                .iter()
                .zip(header())
                .map(|(a, b)| (a ^ b).count_ones());
            assert_eq!(bits.sum::<u32>(), 1);
        }
    }
}

//! What the clients of `bench` send: messages that differ from each other, as far as
//! their size allows. Messages of one byte are all the same, and of the largest there are
//! only two.

/// So many different messages are enough, if they are short.
const MOST: usize = 251;

/// The memory that they may take together, in bytes, if at least two fit.
const ROOM: usize = 4 * 1024 * 1024;

/// Messages of one size. Any byte may be in them; but each ends with a new line, and
/// has no other, because some echo servers answer line by line.
#[derive(Debug)]
pub(super) struct Payloads {
    size: usize,
    bytes: Vec<u8>,
}

impl Payloads {
    /// Makes messages of `size` bytes, one at least.
    pub(super) fn new(size: usize) -> Payloads {
        let number = (ROOM / size).clamp(2, MOST);
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let next = || {
            // xorshift64, by George Marsaglia.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let byte = (state >> 32) as u8;
            if byte == b'\n' { b'.' } else { byte }
        };
        let mut bytes: Vec<u8> = std::iter::repeat_with(next).take(number * size).collect();
        bytes.iter_mut().skip(size - 1).step_by(size).for_each(|last| *last = b'\n');
        Payloads { size, bytes }
    }

    /// How many different messages there are.
    pub(super) fn number(&self) -> u64 {
        (self.bytes.len() / self.size) as u64
    }

    /// The message of that number; after the last they begin anew.
    pub(super) fn get(&self, number: u64) -> &[u8] {
        let start = (number % self.number()) as usize * self.size;
        &self.bytes[start..start + self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_size_end_with_a_new_line_and_differ() {
        for size in [1, 2, 64, 65_536, ROOM, ROOM + 1] {
            let payloads = Payloads::new(size);
            for number in [0, 1, 250, u64::MAX] {
                let message = payloads.get(number);
                assert_eq!(message.len(), size);
                assert_eq!(message.iter().position(|byte| *byte == b'\n'), Some(size - 1));
            }
            assert!(size < 64 || payloads.get(0) != payloads.get(1), "{size}");
        }
        let short = Payloads::new(64);
        assert_eq!((short.get(0), short.bytes.len()), (short.get(251), 251 * 64));
    }
}

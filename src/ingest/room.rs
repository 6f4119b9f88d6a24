//! Room for what is being taken in, counted in bytes as they stand in memory.
//!
//! Room is taken while a body arrives and while it is decoded, not afterwards: a few bytes may stand
//! for many (a gzip of newlines, an empty line of text that becomes a record), and by the time that
//! their number is known they would be in memory already.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Large room is taken so many KiB at a time, so that small pieces do not each pass through the semaphore.
const STEP_KIB: u32 = 64;

/// All the room there is for one purpose. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    /// One permit a KiB.
    free: Arc<Semaphore>,
    kib: u32,
}

/// Room that was taken; it is given back when this is dropped.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// It will never fit: there are only so many bytes for all.
    TooLarge { limit: u64 },
    /// Others have it; try again.
    Taken,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(kib as usize)), kib }
    }

    /// Enlarges `room` to hold `bytes`, at once or not at all.
    pub fn grow(&self, room: &mut Room, bytes: u64) -> Result<(), NoRoom> {
        let (has, needs) = (room.kib(), bytes.div_ceil(1024));
        if needs <= u64::from(has) {
            return Ok(());
        }
        let needs = u32::try_from(needs).ok().filter(|needs| *needs <= self.kib);
        let needs = needs.ok_or(NoRoom::TooLarge { limit: u64::from(self.kib) * 1024 })?;
        let rounded = if needs > STEP_KIB { needs.next_multiple_of(STEP_KIB).min(self.kib) } else { needs };
        let more = Arc::clone(&self.free).try_acquire_many_owned(rounded - has).map_err(|_| NoRoom::Taken)?;
        match &mut room.0 {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Room for `bytes`, out of `from` as far as that has it. What is larger than the whole budget
    /// takes all of it. Rounded down, so that parts take no more than was taken for the whole.
    pub(super) fn take(&self, from: &mut Room, bytes: u64) -> Result<Room, NoRoom> {
        let kib = (bytes / 1024).clamp(1, u64::from(self.kib));
        let mut taken = Room(from.0.as_mut().and_then(|from| from.split(kib.min(from.num_permits() as u64) as usize)));
        self.grow(&mut taken, kib * 1024)?;
        Ok(taken)
    }

    /// The share that is taken.
    pub fn taken_bytes(&self) -> u64 {
        u64::from(self.kib).saturating_sub(self.free.available_permits() as u64) * 1024
    }
}

impl Room {
    fn kib(&self) -> u32 {
        self.0.as_ref().map_or(0, |room| u32::try_from(room.num_permits()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_as_it_is_needed_and_given_back() {
        let budget = Budget::new(256 * 1024);
        let (mut one, mut other) = (Room::default(), Room::default());
        budget.grow(&mut one, 1).expect("room");
        assert_eq!(budget.taken_bytes(), 1024);
        budget.grow(&mut one, 65 * 1024).expect("room");
        budget.grow(&mut one, 128 * 1024).expect("has it already");
        assert_eq!(budget.taken_bytes(), 128 * 1024);
        assert_eq!(budget.grow(&mut other, 129 * 1024), Err(NoRoom::Taken));
        assert_eq!(budget.grow(&mut other, 256 * 1024 + 1), Err(NoRoom::TooLarge { limit: 256 * 1024 }));
        let part = budget.take(&mut one, 100 * 1024).expect("its own");
        assert_eq!(budget.taken_bytes(), 128 * 1024);
        let more = budget.take(&mut one, 60 * 1024).expect("its own and more");
        assert_eq!(budget.taken_bytes(), 160 * 1024);
        drop((one, part, more));
        assert_eq!(budget.taken_bytes(), 0);
        // A batch that no budget was asked for while it was made.
        let all = budget.take(&mut other, 1 << 30).expect("all there is");
        assert_eq!(budget.taken_bytes(), 256 * 1024);
        drop(all);
    }
}

//! A table of open files, whose ids cannot come to mean another file.

use super::FileId;

/// Files that one storage holds open at a time. The log keeps far fewer (DESIGN.md section 4);
/// the bound is against a leak.
pub(super) const OPEN_FILES_MAX: usize = 65_536;

/// Bits of an id that hold the slot; the rest is the slot's generation.
const SLOT_BITS: u32 = 20;

const _: () = assert!(OPEN_FILES_MAX <= 1 << SLOT_BITS);

/// Open files by id. A slot is used again with the next generation.
#[derive(Debug)]
pub(super) struct FileTable<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u64,
    file: Option<T>,
}

impl<T> FileTable<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The file, unless it is closed.
    pub(super) fn get(&self, id: FileId) -> Option<&T> {
        let (slot, generation) = split(id);
        let slot = self.slots.get(slot)?;
        if slot.generation == generation {
            slot.file.as_ref()
        } else {
            None
        }
    }

    /// All files, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.file.as_ref())
    }

    /// Gives the file an id; gives it back if [`OPEN_FILES_MAX`] are open.
    pub(super) fn insert(&mut self, file: T) -> Result<FileId, T> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < OPEN_FILES_MAX => {
                self.slots.push(Slot {
                    generation: 1,
                    file: None,
                });
                self.slots.len() - 1
            }
            None => return Err(file),
        };
        let slot = &mut self.slots[index];
        assert!(slot.file.is_none(), "a free slot holds no file");
        slot.file = Some(file);
        Ok(FileId(slot.generation << SLOT_BITS | index as u64))
    }

    /// Takes the file out. Its id is refused from now on.
    pub(super) fn remove(&mut self, id: FileId) -> Option<T> {
        let (index, generation) = split(id);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation {
            return None;
        }
        let file = slot.file.take()?;
        slot.generation += 1;
        self.free.push(index);
        Some(file)
    }

    /// Takes all files out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| slot.file)
    }
}

fn split(id: FileId) -> (usize, u64) {
    let slot = id.0 & ((1 << SLOT_BITS) - 1);
    (
        usize::try_from(slot).expect("20 bits fit"),
        id.0 >> SLOT_BITS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_does_not_come_to_mean_another_file() {
        let mut table = FileTable::new();
        let a = table.insert("a").unwrap();
        assert_eq!(table.get(a), Some(&"a"));
        assert_eq!(table.remove(a), Some("a"));
        let b = table.insert("b").unwrap();
        assert_eq!(table.get(a), None);
        assert_eq!(table.remove(a), None);
        assert_eq!(table.get(b), Some(&"b"));
        assert_eq!(table.get(FileId(0)), None);
        assert_eq!(table.get(FileId(u64::MAX)), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = FileTable::new();
        for n in 0..OPEN_FILES_MAX {
            table.insert(n).unwrap();
        }
        assert_eq!(table.insert(7), Err(7));
    }
}

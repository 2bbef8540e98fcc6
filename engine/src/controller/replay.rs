//! The controller's state from group 0's files, for tools that look at a stopped node.

use highwater_consensus::LogIndex;
use highwater_record::Buffer;

use super::state::{ApplyError, Controller};
use crate::positions::Control;

impl Controller {
    /// Applies the next entry of group 0's log as it lies on the disk, committed or not.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    ///
    /// # Panics
    ///
    /// If it is not the next entry.
    pub fn replay(&mut self, index: LogIndex, body: &[u8]) -> Result<(), ApplyError> {
        match Control::read(&Buffer::from(body.to_vec())) {
            Some(Control::Owner(record)) => self.apply(index, &record).map(|_| ()),
            Some(Control::Noop | Control::LogStart(_)) | None => {
                self.pass(index);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Record;

    #[test]
    fn records_are_applied_and_everything_else_is_passed() {
        let mut controller = Controller::new();
        let replay = |controller: &mut Controller, index, control: Control| {
            controller.replay(LogIndex(index), &control.body())
        };
        let record = Record {
            based_on: LogIndex(0),
            events: Vec::new(),
        };
        replay(&mut controller, 1, Control::Noop).unwrap();
        let owner = Control::Owner(Buffer::from(record.encode()));
        replay(&mut controller, 2, owner).unwrap();
        assert_eq!(controller.applied(), LogIndex(2));
        assert_eq!(controller.last_record(), LogIndex(2));
        let unreadable = Control::Owner(Buffer::from(vec![0xff; 4]));
        assert!(replay(&mut controller, 3, unreadable).is_err());
    }
}

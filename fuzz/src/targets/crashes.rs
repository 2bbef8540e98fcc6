//! The life of a log as a script: what is appended, cut, replaced, sealed and retired, with crashes
//! between any two steps. What is recovered then is what the model allows.

use std::time::Duration;

use highwater_log::storage::{Faults, Keep, PendingChange, PendingKind, SECTOR};

use super::script::Script;
use crate::common::world::{GROUPS, World};
use crate::start::{assert_same, judge, sound_start};

const STEPS_MAX: usize = 200;

/// So large that a few fill a file.
const LARGE: usize = 15_000;

pub(crate) fn check(data: &[u8]) {
    let mut script = Script::new(data);
    let slow = u64::from(script.u8() % 32);
    let faults = Faults {
        delay_max: Duration::from_millis(slow),
        ..Faults::default()
    };
    let mut world = World::new(script.u8().into(), faults);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        step(&mut world, &mut script);
    }
    world.crash();
}

fn step(world: &mut World, script: &mut Script<'_>) {
    let choice = script.u8();
    let group = GROUPS[usize::from(choice) % GROUPS.len()];
    match choice / 2 % 16 {
        0..=2 => world.append_of(group, script.u16().into()),
        3 => world.append_of(group, LARGE + usize::from(script.u8())),
        4 => world.promise(group),
        5 => world.cut(group),
        6 => world.base(group),
        7 => world.commit(group),
        8 => world.seal(group),
        9 => world.retain(group),
        10 => world.node().now += Duration::from_millis(script.u8().into()),
        11 => (0..script.u8() % 32).for_each(|_| world.turn()),
        12 | 13 => world.turn(),
        14 => world.crash(),
        _ => the_power_is_cut(world, script),
    }
}

/// A copy of the disk loses its power; the script says what is left of each change. What is found is
/// durable: another cut changes nothing. The world goes on with its own.
fn the_power_is_cut(world: &World, script: &mut Script<'_>) {
    let image = world.disk.fork();
    image.power_cut(|change| left_of(change, script));
    let context = "by script";
    let (node, logs) = sound_start(&image, context);
    judge(&world.model, &logs, context);
    drop(node);
    image.power_cut(|_| Keep::Nothing);
    let (_, again) = sound_start(&image, context);
    assert_same(&logs, &again, context);
}

fn left_of(change: &PendingChange, script: &mut Script<'_>) -> Keep {
    let units = match change.kind {
        PendingKind::Write { len, .. } => len.div_ceil(SECTOR),
        PendingKind::Resize { .. } | PendingKind::Entries => 0,
    };
    let front = script.u8();
    match front {
        0 => Keep::Nothing,
        1..=200 if units > 0 => Keep::Units {
            unit: SECTOR,
            kept: (0..units).map(|nth| nth < front.into()).collect(),
        },
        201..=240 if units > 0 => Keep::Units {
            unit: SECTOR,
            kept: (0..units).map(|_| script.u8().is_multiple_of(2)).collect(),
        },
        _ => Keep::Everything,
    }
}

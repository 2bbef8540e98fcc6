//! What the images do whose power is cut: without it, a campaign on them would prove nothing.
//!
//! Where rights or mkfs lack, the tests say so and do nothing.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use highwater_tests::disk_image::{
    Cut, DiskImage, FileSystem, MemoryFolder, PAGE_BYTES, drop_cache, isolate_mounts,
    why_unavailable, write_back,
};

const PAGES: u64 = 16;

/// Runs a test on an image of each file system that there can be.
fn on_each(test: impl Fn(&mut DiskImage)) {
    for file_system in FileSystem::ALL {
        if let Some((mut image, _folder)) = image(file_system) {
            test(&mut image);
        }
    }
}

fn image(file_system: FileSystem) -> Option<(DiskImage, tempfile::TempDir)> {
    let name = file_system.name();
    if let Some(why) = why_unavailable(file_system) {
        // Past the capture of a passing test's output.
        let _ = writeln!(std::io::stderr(), "not tested on {name}: {why}");
        return None;
    }
    isolate_mounts().unwrap();
    // Dropped after the image: it would be emptied, image and all.
    let folder = tempfile::tempdir().unwrap();
    let image = DiskImage::create(folder.path(), "disk", file_system, 320 << 20).unwrap();
    Some((image, folder))
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    options.truncate(false).open(path).unwrap()
}

/// A file of as many synced pages, each filled with this byte.
fn filled(path: &Path, byte: u8) -> File {
    let file = open(path);
    for page in 0..PAGES {
        write_page(&file, page, byte);
    }
    file.sync_all().unwrap();
    File::open(path.parent().unwrap())
        .unwrap()
        .sync_all()
        .unwrap();
    file
}

fn write_page(file: &File, page: u64, byte: u8) {
    let bytes = [byte; PAGE_BYTES as usize];
    file.write_all_at(&bytes, page * PAGE_BYTES).unwrap();
}

/// The first byte of each page.
fn pages(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    bytes.iter().step_by(PAGE_BYTES as usize).copied().collect()
}

#[test]
fn a_cut_loses_what_was_not_synced_and_nothing_else() {
    on_each(|image| {
        let path = image.path().to_owned();
        let file = filled(&path.join("synced"), 1);
        write_page(&file, 3, 2);
        write_page(&file, PAGES, 2);
        fs::write(path.join("never synced"), "x").unwrap();
        image.cut_power(Cut::Everything).unwrap();
        assert!(file.sync_all().is_err(), "the disk is gone");
        drop(file);
        image.restore_power().unwrap();
        assert_eq!(pages(&path.join("synced")), [1; PAGES as usize]);
        assert!(!path.join("never synced").exists());
        fs::write(path.join("again"), "it can be written").unwrap();
    });
}

#[test]
fn chosen_pages_reach_the_disk() {
    on_each(|image| {
        let path = image.path().join("file");
        let file = filled(&path, 1);
        drop_cache(&file).unwrap();
        for page in 0..PAGES {
            write_page(&file, page, 2);
        }
        for page in [2, 5, 11] {
            write_back(&file, page * PAGE_BYTES, PAGE_BYTES).unwrap();
        }
        image.cut_power(Cut::Everything).unwrap();
        drop(file);
        image.restore_power().unwrap();
        let new = (0..).zip(pages(&path)).filter(|(_, byte)| *byte == 2);
        let new: Vec<u64> = new.map(|(page, _)| page).collect();
        assert_eq!(new, [2, 5, 11]);
    });
}

#[test]
fn the_gentler_cuts_keep_more() {
    on_each(|image| {
        let path = image.path().to_owned();
        fs::write(path.join("a"), "not synced").unwrap();
        image.cut_power(Cut::Nothing).unwrap();
        assert!(fs::write(path.join("b"), "").is_err());
        image.restore_power().unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"not synced");

        fs::write(path.join("c"), "not synced").unwrap();
        image.cut_power(Cut::KeepJournal).unwrap();
        image.restore_power().unwrap();
        assert!(path.join("c").exists(), "its name was in the journal");
        assert_eq!(fs::read(path.join("c")).unwrap(), b"", "its data were not");
    });
}

#[test]
fn an_image_becomes_read_only_under_open_files() {
    let Some((mut image, _folder)) = image(FileSystem::Ext4) else {
        return;
    };
    let path = image.path().join("file");
    let file = filled(&path, 1);
    image.make_read_only().unwrap();
    let refused = file.write_all_at(b"x", 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    drop(file);
    image.restore_power().unwrap();
    assert_eq!(pages(&path), [1; PAGES as usize]);
    write_page(&open(&path), 0, 2);
}

#[test]
fn nothing_is_left_of_an_image() {
    on_each(|image| {
        let folder = tempfile::tempdir().unwrap();
        let other = DiskImage::create(folder.path(), "other", image.file_system(), 320 << 20);
        let other = other.unwrap();
        assert!(other.free_bytes().unwrap() > 100 << 20);
        drop(other);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let kept = DiskImage::create(folder.path(), "kept", image.file_system(), 320 << 20);
        let kept = kept.unwrap().keep().unwrap();
        assert!(kept.exists());
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let ours = folder.path().to_str().unwrap();
        assert!(!mounts.contains(ours), "{mounts}");
    });
}

#[test]
fn a_folder_in_memory_is_seen_by_nobody_else() {
    let others = std::thread::spawn(|| {
        let (ask, asked) = std::sync::mpsc::channel::<std::path::PathBuf>();
        let (answer, answers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let path = asked.recv().unwrap();
            answer.send(fs::read_dir(path).unwrap().count()).unwrap();
        });
        image(FileSystem::Ext4)?;
        let memory = MemoryFolder::new().unwrap();
        fs::write(memory.path().join("file"), "x").unwrap();
        ask.send(memory.path().to_owned()).unwrap();
        let others = answers.recv().unwrap();
        let path = memory.path().to_owned();
        drop(memory);
        Some((others, path.exists()))
    });
    let seen = others.join().unwrap();
    assert!(seen.is_none_or(|seen| seen == (0, false)), "{seen:?}");
}

//! A stopped directory is mended from another one.

use crate::{Rot, is_whole, one_file, rot, sealed_files};
use highwater_log::storage::{MemoryDisk, MemoryStorage};
use highwater_log::{ClusterId, Directory, DirectoryFormat, Inspector, MendError, Mended, mend};

fn mend_from(disk: &MemoryDisk, donor: &MemoryDisk) -> Result<Mended, MendError> {
    let mut donor = Inspector::open(MemoryStorage::new(donor)).unwrap();
    mend(MemoryStorage::new(disk), crate::common::pool(), &mut donor)
}

#[test]
fn a_stopped_directory_is_mended_from_another() {
    for healthy in [one_file(), sealed_files()] {
        let disk = healthy.fork();
        for index in [3, 11, 12] {
            rot(&disk, index, Rot::Header);
        }
        let mended = mend_from(&disk, &healthy).unwrap();
        assert_eq!((mended.entries, mended.unmended), (3, 0), "{mended:?}");
        is_whole(&disk, &healthy, "offline");
        let again = mend_from(&disk, &healthy).unwrap();
        assert_eq!(again, Mended::default());
    }
}

#[test]
fn what_the_other_directory_lacks_too_is_left_as_it_is() {
    let healthy = one_file();
    let disk = healthy.fork();
    rot(&disk, 3, Rot::Body);
    rot(&disk, 7, Rot::Body);
    let donor = healthy.fork();
    rot(&donor, 7, Rot::Body);
    let before = disk.contents("groups/7/0000000001.log").unwrap();
    let mended = mend_from(&disk, &donor).unwrap();
    assert_eq!((mended.files, mended.unmended), (0, 1), "{mended:?}");
    assert_eq!(disk.contents("groups/7/0000000001.log").unwrap(), before);
    assert_eq!(mend_from(&disk, &healthy).unwrap().entries, 2);
    is_whole(&disk, &healthy, "in the end");
}

#[test]
fn directories_of_two_clusters_are_not_mended_from_each_other() {
    let healthy = one_file();
    let disk = healthy.fork();
    rot(&disk, 3, Rot::Body);
    let foreign = MemoryDisk::new();
    let other = DirectoryFormat {
        cluster: ClusterId([9; 16]),
        ..crate::common::directory_format()
    };
    Directory::format(&mut MemoryStorage::new(&foreign), &other).unwrap();
    assert_eq!(mend_from(&disk, &foreign), Err(MendError::OtherCluster));
}

//! TUN devices: an interface whose packets a file carries.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::io_error;

/// `struct ifreq` of netdevice(7), as far as a TUN device needs it: a name and flags in 40 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `TUNSETIFF`: makes the file an interface's.
const SET_INTERFACE: Opcode = opcode::write::<std::ffi::c_int>(b'T', 202);

/// `IFF_TUN | IFF_NO_PI`: IP packets, with nothing in front of them.
const PLAIN_PACKETS: u16 = 0x1001;

/// Makes a TUN device in the network namespace of the calling thread. It goes when the file is
/// closed. Reads do not wait.
pub(super) fn open(name: &str) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).expect("flags are small"))
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: PLAIN_PACKETS,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    set_interface(&device, &mut request)?;
    Ok(device)
}

#[expect(unsafe_code, reason = "there is no other way to a TUN device")]
fn set_interface(device: &File, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, 40 bytes, as `InterfaceRequest` is;
    // it lives on the caller's stack for the whole call, and the kernel keeps no pointer to it.
    let done = unsafe {
        let request = Updater::<{ SET_INTERFACE }, InterfaceRequest>::new(request);
        ioctl(device, request)
    };
    done.map_err(io_error)
}

//! How much room is left on a file system.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file system's size and what of it an ordinary user may still fill, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Space {
    pub free_bytes: u64,
    pub size_bytes: u64,
}

/// The space of the file system that holds `path`, or would hold it once it is made; none where the system does not
/// say. May block for as long as the file system does.
pub fn space(path: &Path) -> Option<Space> {
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    let name = CString::new(there.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is valid, the name ends with NUL, and the call writes only into the struct.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(name.as_ptr(), &mut stat) != 0 {
            return None;
        }
        stat
    };
    Some(Space { free_bytes: stat.f_bavail * stat.f_frsize, size_bytes: stat.f_blocks * stat.f_frsize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_space_of_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let there = space(folder.path()).unwrap();
        let later = space(&folder.path().join("a/b")).unwrap();
        assert_eq!(there.size_bytes, later.size_bytes);
        assert!(there.free_bytes <= there.size_bytes && there.size_bytes > 0, "{there:?}");
    }
}

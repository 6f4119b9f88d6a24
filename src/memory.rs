//! How much freed memory the C library keeps.

/// Lets glibc have an arena a processor, where it takes eight: each keeps what it once needed, and the daemon's
/// threads come and go. Measured in docs/performance.md: half the memory at the same speed. To be called before
/// there is a second thread; does nothing where another C library is.
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let arenas = std::thread::available_parallelism().map_or(1, usize::from).max(2);
        let arenas = libc::c_int::try_from(arenas).unwrap_or(libc::c_int::MAX);
        // SAFETY: it sets a number in the C library, which no other thread reads yet.
        #[expect(unsafe_code, reason = "mallopt has no safe form")]
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}

//! Bugs planted on purpose, to learn whether the tests would find them.
//!
//! `mutant!("name")` is `false` in every build but that of this crate's own unit tests, where it
//! asks [`planted`] whether the test at hand has planted that bug. So what ships has none of it.

/// Whether the bug of this name is planted.
#[cfg(not(test))]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// Whether the bug of this name is planted.
#[cfg(test)]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::planted::is($name)
    };
}

#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Whether this thread's bug is `name`.
    pub(crate) fn is(name: &str) -> bool {
        PLANTED.get().is_some_and(|planted| planted == name)
    }

    /// Plants a bug for this thread, until the value is dropped.
    pub(crate) fn plant(name: &'static str) -> Planted {
        PLANTED.set(Some(name));
        Planted
    }

    /// A bug is planted while this lives.
    #[must_use]
    pub(crate) struct Planted;

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}

//! The measured share of the passes that one class of requests gets. A class may get less than its
//! backlog and those of the others suggest, because the others receive new requests meanwhile.

/// The scale of the average, in tokens of all classes: about the last ones of so many determine the
/// result. It is 256 turns of a user.
const WINDOW: f64 = 65_536.0;
/// A share is known once passes took so many tokens while requests of the class waited: 16 turns.
const LEAST: f64 = 4_096.0;
/// The least share that is assumed.
const MIN_SHARE: f64 = 1.0 / 1024.0;

/// The share of a class in the tokens that passes take while its requests wait. It counts tokens
/// and no time, so a pause of the process does not change it.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Tokens of the class, with less weight the more tokens were taken after them.
    own: f64,
    /// Those of all classes.
    all: f64,
    /// The counter of all tokens at the last change.
    counted: u64,
}

impl Share {
    /// Begins to measure a class that receives its first request. `counter` counts all tokens that
    /// passes have taken.
    pub(super) fn begin(counter: u64) -> Self {
        Self { counted: counter, ..Self::default() }
    }

    /// Adds tokens of the class that a pass takes. `counter` includes them.
    pub(super) fn add(&mut self, tokens: usize, counter: u64) {
        (self.own, self.all) = self.at(counter);
        self.own += tokens as f64;
        self.counted = counter;
    }

    /// The share, above 0 and at most 1; none while it is not known.
    pub(super) fn get(&self, counter: u64) -> Option<f64> {
        let (own, all) = self.at(counter);
        (all >= LEAST && own > 0.0).then(|| (own / all).max(MIN_SHARE))
    }

    /// The weighted tokens of the class and of all classes when the counter has this value.
    fn at(&self, counter: u64) -> (f64, f64) {
        let new = counter.saturating_sub(self.counted) as f64;
        let weight = (-new / WINDOW).exp();
        (self.own * weight, self.all * weight + new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of all classes that passes take before so many of this one.
    fn all_for(share: &Share, tokens: usize, counter: u64) -> Option<usize> {
        share.get(counter).map(|share| (tokens as f64 / share) as usize)
    }

    #[test]
    fn share_is_that_of_recent_passes() {
        let (mut share, mut counter) = (Share::begin(1_000), 1_000);
        let mut take = |share: &mut Share, passes: usize, own: usize| {
            for _ in 0..passes {
                counter += 1_000;
                share.add(own, counter);
            }
            counter
        };
        let now = take(&mut share, 3, 1_000);
        assert_eq!(all_for(&share, 10, now), None, "too few tokens were taken");
        let now = take(&mut share, 10, 1_000);
        assert_eq!(all_for(&share, 500, now), Some(500));
        // Another class takes three quarters of the passes from now on.
        let now = take(&mut share, 500, 250);
        let all = all_for(&share, 500, now).unwrap();
        assert!((1_900..=2_010).contains(&all), "{all}");
        // Passes without the class count, too.
        assert!(all_for(&share, 500, now + 65_536).unwrap() > 4_000);
        assert_eq!(all_for(&share, 500, now + 10_000_000), Some(512_000));
    }

    #[test]
    fn share_of_a_class_that_gets_nothing_is_unknown() {
        assert_eq!(all_for(&Share::begin(0), 500, 1_000_000), None);
    }
}

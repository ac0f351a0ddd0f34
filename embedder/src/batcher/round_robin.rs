//! Surplus round robin: a deficit round robin that may overdraw (Adiseshu, Parulkar and Varghese
//! 1996). Each turn of a flow is worth its quantum of tokens, and a flow that took more skips turns
//! until that is made up for, also while its backlog is empty. Flows get service in proportion to
//! their quanta.

use std::collections::VecDeque;

/// A backlog that takes turns with others.
pub(super) trait Flow {
    /// Its credit.
    fn credit(&mut self) -> &mut FlowCredit;

    /// Tokens that wait.
    fn tokens(&self) -> usize;
}

/// The credit of a flow.
#[derive(Debug)]
pub(super) struct FlowCredit {
    /// Tokens that a turn is worth.
    quantum: usize,
    /// Tokens that the flow may take; below zero after it took more.
    tokens: isize,
    /// Whether the flow has its turn, and the credit of it.
    in_turn: bool,
}

impl FlowCredit {
    /// The credit of a flow whose turns are worth so many tokens.
    pub(super) fn of_quantum(quantum: usize) -> Self {
        Self { quantum, tokens: 0, in_turn: false }
    }

    /// Tokens that the flow may take.
    pub(super) fn left(&self) -> isize {
        self.tokens
    }

    /// Begins or continues a turn, which ends when the credit is used up. Returns whether the flow
    /// may take tokens.
    pub(super) fn continue_turn(&mut self) -> bool {
        if !self.in_turn {
            self.in_turn = true;
            self.tokens += self.quantum as isize;
        }
        self.in_turn = self.tokens > 0;
        self.in_turn
    }

    /// Takes tokens.
    pub(super) fn spend(&mut self, tokens: usize) {
        self.tokens -= tokens as isize;
    }
}

/// The flow whose turn it is, of flows in the order of their turns. Removes those that have neither
/// a backlog nor a debt.
pub(super) fn next_turn<F: Flow>(flows: &mut VecDeque<F>) -> Option<&mut F> {
    loop {
        let flow = flows.front_mut()?;
        match (flow.credit().continue_turn(), flow.tokens()) {
            (false, _) => flows.rotate_left(1),
            // The debt is paid.
            (true, 0) => drop(flows.pop_front()),
            (true, _) => return flows.front_mut(),
        }
    }
}

// Reports failed checks.

#pragma once

namespace amx {

/// Prints `what` and fails the program, unless `passed`.
void expect(bool passed, const char *what);

} // namespace amx

// Executes the instructions of AMX in software on a processor without AMX.

#pragma once

namespace amx {

/// Whether this processor has AMX. Requests the permission to use it from Linux; exits with 1 if
/// Linux denies it.
bool is_native();

/// From now on, this process executes the instructions of AMX in a handler of SIGILL, which a
/// processor without AMX raises for them. Each thread has its own tiles. Any other invalid
/// instruction ends the process by SIGILL, as without the handler. So does an instruction of AMX
/// for which a processor would raise an exception.
void emulate();

} // namespace amx

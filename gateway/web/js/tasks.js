// Long work in short tasks, between which the browser handles input and paints.

// Continues in a new task.
export const nextTask = () => globalThis.scheduler?.yield?.() ?? new Promise((resolve) => setTimeout(resolve));

const TASK_MS = 30;

// Calls `action` for each item, in tasks of a bounded length; false if the signal aborted it.
export async function eachInTasks(items, action, signal) {
  let begin = performance.now();
  for (let i = 0; i < items.length; i++) {
    if (performance.now() - begin > TASK_MS) {
      await nextTask();
      begin = performance.now();
    }
    if (signal?.aborted) return false;
    action(items[i], i);
  }
  return true;
}

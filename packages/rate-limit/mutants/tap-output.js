/**
 * The first assertion that failed, from the TAP of one test file: in which test, and a `fault` if something else than an
 * assertion ended it: a time-out, a script that does not run, or a test file that died.
 */
export function firstFailure (output) {
  const lines = output.split('\n')
  const at = lines.findIndex(line => /^ *not ok \d+/.test(line))
  if (at < 0) return { fault: `ended without a failed assertion: ${output.trim().slice(-300)}` }
  const test = lines.slice(0, at).findLast(line => line.includes('# Subtest: '))?.split('# Subtest: ')[1]
  const end = lines.findIndex((line, i) => i > at && /^ *\.\.\.$/.test(line))
  const diagnosis = lines.slice(at, end < 0 ? undefined : end + 1).join('\n')
  if (test === undefined) return { fault: `failed outside of a test: ${diagnosis.slice(0, 300)}` }
  if (/timeout!|expired: /.test(diagnosis)) return { fault: `a time-out in "${test}"` }
  if (/user_script|Error (compiling|running) script|no reply in/.test(diagnosis)) return { fault: `an error and no assertion in "${test}": ${diagnosis.slice(0, 400)}` }
  return { test }
}

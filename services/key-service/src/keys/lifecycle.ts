/** What is stored; `expired` is told by time alone, and `deleted` keys cannot be addressed. */
export type KeyStatus = 'active' | 'disabled' | 'revoked'
export type KeyAction = 'edit' | 'disable' | 'enable' | 'rotate' | 'finishRotation' | 'revoke' | 'delete'

type Outcome = KeyStatus | 'deleted' | 'refused'

/** Every action on every status. Repeating `disable` or `enable` is no conflict: whoever repeats a lost request gets the same end. */
const transitions: Record<KeyStatus, Record<KeyAction, Outcome>> = {
  active: { edit: 'active', disable: 'disabled', enable: 'active', rotate: 'active', finishRotation: 'active', revoke: 'revoked', delete: 'deleted' },
  disabled: { edit: 'disabled', disable: 'disabled', enable: 'active', rotate: 'disabled', finishRotation: 'disabled', revoke: 'revoked', delete: 'deleted' },
  // Final: its reason and its time stand, and nothing brings it back.
  revoked: { edit: 'refused', disable: 'refused', enable: 'refused', rotate: 'refused', finishRotation: 'refused', revoke: 'refused', delete: 'deleted' }
}

/** The status after an action, or `refused` when the key's status does not allow it. */
export function transition (status: KeyStatus, action: KeyAction): Outcome {
  return transitions[status][action]
}

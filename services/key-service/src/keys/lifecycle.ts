/** What is stored; `expired` is told by time alone, and `deleted` keys cannot be addressed. */
export type KeyStatus = 'active' | 'disabled' | 'revoked'
export type KeyAction = 'edit' | 'disable' | 'enable' | 'rotate' | 'extendRotation' | 'finishRotation' | 'reveal' | 'revoke' | 'delete'

type Outcome = KeyStatus | 'deleted' | 'refused'

/** What leaves the status as it is, and is refused once that is final. */
const settingsActions = ['edit', 'rotate', 'extendRotation', 'finishRotation', 'reveal'] as const
const staying = <S extends Outcome>(status: S) => Object.fromEntries(settingsActions.map(action => [action, status])) as Record<typeof settingsActions[number], S>

/** Every action on every status. Repeating `disable` or `enable` is no conflict: whoever repeats a lost request gets the same end. */
const transitions: Record<KeyStatus, Record<KeyAction, Outcome>> = {
  active: { ...staying('active'), disable: 'disabled', enable: 'active', revoke: 'revoked', delete: 'deleted' },
  disabled: { ...staying('disabled'), disable: 'disabled', enable: 'active', revoke: 'revoked', delete: 'deleted' },
  // Final: its reason and its time stand, and nothing brings it back.
  revoked: { ...staying('refused'), disable: 'refused', enable: 'refused', revoke: 'refused', delete: 'deleted' }
}

/** The status after an action, or `refused` when the key's status does not allow it. */
export function transition (status: KeyStatus, action: KeyAction): Outcome {
  return transitions[status][action]
}

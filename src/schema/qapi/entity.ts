/**
 * The language in which QEMU's schema is written down here: plain data that a person can read beside QEMU's own
 * documentation. `since` and `until` say in which releases something exists, so one table serves all of them.
 *
 *     type      'str'  'bool'  'int'  'uint8' … 'size'  'number'  'null'  'any'   built in
 *               'MigrationStatus'                                                 the name of a struct, union, enum …
 *               '[str]'                                                           an array
 *     member    name: [type, what it means, marks]         'name?' is optional
 */

/** A release such as `9.0`. */
export type ReleaseText = `${number}.${number}`;

/** When something exists, and what is special about it. */
export interface Marks {
  /** The first release that has it, by QEMU's documentation. */
  readonly since?: ReleaseText;
  /** The last release that has it. */
  readonly until?: ReleaseText;
  /** Deprecated from this release on. */
  readonly deprecated?: ReleaseText;
  readonly unstable?: true;
  /** It exists only in a QEMU that was built with this option. */
  readonly if?: string;
}

export interface MemberMarks extends Marks {
  /** Optional from this release on, required before. */
  readonly optionalSince?: ReleaseText;
  /** The type that it had in earlier releases. */
  readonly was?: { readonly type: string; readonly until: ReleaseText };
}

/** A member of a struct: its type, what it means, and its marks. */
type Member = readonly [type: string, doc: string, marks?: MemberMarks];
export type Members = Readonly<Record<string, Member>>;

export interface Enum extends Marks {
  readonly kind: 'enum';
  readonly doc: string;
  /** There are more values, which nothing here uses. */
  readonly isPartial?: true;
  /** In QEMU's order. */
  readonly values: Readonly<Record<string, readonly [doc: string, marks?: Marks]>>;
}

export interface Struct extends Marks {
  readonly kind: 'struct';
  readonly doc: string;
  readonly members: Members;
}

/** Members of its base, then those of the branch that the member `tag` names. */
export interface Union extends Marks {
  readonly kind: 'union';
  readonly doc: string;
  readonly base: Members;
  readonly tag: string;
  /** The struct or union of each value of the tag. Values without a branch have no further members. */
  readonly branches: Readonly<Record<string, string>>;
}

/** One of several JSON types. */
export interface Alternate extends Marks {
  readonly kind: 'alternate';
  readonly doc: string;
  readonly types: readonly string[];
}

export interface Command extends Marks {
  readonly kind: 'command';
  readonly doc: string;
  /** Its arguments, or the name of the struct whose members they are. */
  readonly arguments?: Members | string;
  /** Nothing: it returns an empty object. */
  readonly returns?: string;
  /** It may run out of band. */
  readonly isOob?: true;
  /** The errors of its own, besides those of the arguments: the text, and when it comes. */
  readonly errors?: readonly (readonly [text: string, when: string])[];
}

export interface Event extends Marks {
  readonly kind: 'event';
  readonly doc: string;
  readonly data?: Members;
}

export type TypeEntity = Enum | Struct | Union | Alternate;
export type Entity = TypeEntity | Command | Event;
/** Entities by name. */
export type Entities = Readonly<Record<string, Entity>>;

/**
 * Wording that a native technical writer would not use, each with a replacement and an example that the pattern finds.
 * scripts/check-words.mjs searches documents, code, tests and error messages for all of them.
 */
export const bannedWords = [
  { pattern: /\bforet(?:ell|old)/gi, instead: 'predict', example: 'It foretells the downtime.' },
  { pattern: /\btelling\b/gi, instead: 'significant, essential, or "that says"', example: 'The telling tests run.' },
  { pattern: /\bunless (?:\w+ (?:is|are) )?told\b/gi, instead: 'by default', example: '16 MiB unless told.' },
  {
    pattern: /\bthere (?:cannot|can not|can) be\b/gi,
    instead: 'impossible, or "X cannot have Y"',
    example: 'a record that there cannot be',
  },
  {
    pattern: /\bthat there (?:is|are) not\b|\bthat is not there\b/gi,
    instead: '"missing", "unknown" or "does not exist"',
    example: 'a block that there is not',
  },
  { pattern: /\bm(?:ake|akes|ade|aking) nothing\b/gi, instead: 'ignore', example: 'QEMU makes nothing of it.' },
  {
    pattern: /(?<!\bthere |\b[Tt]here )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|sooner\b)[a-z]/g,
    instead: '"is not a …"',
    example: 'OUT is no regular file.',
  },
  { pattern: /\bby hand of\b/gi, instead: 'by, with, or from', example: 'found by hand of the index' },
  {
    pattern: /\bOf which\b/g,
    instead: 'the subject first',
    example: 'Of which run the table is, the header says.',
  },
  { pattern: /\bas (?:it )?ever\b/gi, instead: 'as usual', example: 'The file is written as ever.' },
  {
    pattern: /\bfor who\b/gi,
    instead: '"for those who", "for contributors", or "if you"',
    example: 'For who measures.',
  },
  {
    pattern: /(?<=^|[.;:*/] )Who (?:\w+s|has|is)\b(?![^.]*\?)/g,
    instead: 'the subject itself, or "if you"',
    example: '. Who serves the page leaves it out.',
  },
  {
    pattern: /\b(?:hold|holds|held|holding) (?:\w+ ){0,3}against\b/gi,
    instead: 'compare with',
    example: 'The file is held against its source.',
  },
  {
    pattern: /\bthe one\b[^.;]{0,60}\bthe other\b/gi,
    instead: 'name both, or "the first … the second"',
    example: 'Pages in the one and in the other.',
  },
  { pattern: /\b(?:will|would) not like\b/gi, instead: 'say what happens', example: 'The guest will not like it.' },
  {
    pattern: /\bgone through\b/gi,
    instead: 'read, scan, visit or walk',
    example: 'Windows gone through one by one.',
  },
  {
    pattern: /(?<=^|[.;:*/] )(?:Nor (?:is|are|was|were|does|do|did|has|have|can)|So it is that)\b/g,
    instead: 'the subject first: "X is not … either"',
    example: 'Nor is it read.',
  },
  { pattern: /\bit is taken that\b/gi, instead: 'this assumes', example: 'It is taken that a core is free.' },
  { pattern: /\btells? of\b/gi, instead: 'report', example: 'No error tells of it.' },
  {
    pattern: /\bhas them at\b|\bhave them at\b/gi,
    instead: 'put the place first',
    example: 'its channels have them at 0x9c86',
  },
  { pattern: /\bfor that (?:it|they|the|a)\b/gi, instead: 'so that', example: 'Windows, for that it ends.' },
];

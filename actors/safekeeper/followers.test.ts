/** WAL goes when every shard can do without it, whichever safekeepers they follow. */
import { expect, it } from 'vitest';
import { packFeedback, readFeedback } from '../../protocols/consensus/wal-frames.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { Followers, slowestShard } from './followers.ts';
import { remoteLsnOf } from './peer-survey.ts';

const at = (receivedLsn: number, remoteLsn: number, number?: number, count = 2) => ({
  receivedLsn: receivedLsn as Lsn,
  remoteLsn: remoteLsn as Lsn,
  ...(number === undefined ? {} : { shard: { number, count } }),
});

it('counts what the one pageserver says that has everything, the newest that speaks', () => {
  const followers = new Followers<string>();
  followers.hear('old', at(500, 400));
  followers.hear('new', at(300, 200));
  expect(followers.remoteLsn).toBe(400);
  expect(followers.receivedLsn).toBe(300);
  followers.leave('old');
  expect(followers.receivedLsn).toBe(300);
  followers.leave('new');
  expect(followers.receivedLsn).toBe(0);
  expect(followers.told).toEqual({});
});

it('counts the slowest of several shards, and nothing while one was not heard', () => {
  const followers = new Followers<string>();
  followers.hear('a', at(900, 800, 0));
  expect(followers.remoteLsn).toBe(0);
  followers.hear('b', at(600, 500, 1));
  expect(followers.remoteLsn).toBe(500);
  expect(followers.receivedLsn).toBe(600);
});

it('puts together what several safekeepers have heard, each of some shards', () => {
  const mine = new Followers<string>();
  mine.hear('a', at(900, 800, 0));
  const peer = { node: 'sk-b', flushLsn: 0, commitLsn: 0, backupLsn: 0, remoteLsn: 100 };
  const own = { remoteLsn: 100 as Lsn, followers: mine };
  expect(remoteLsnOf(own, [peer as never])).toBe(100);
  expect(remoteLsnOf(own, [{ ...peer, shards: { '1of2': 700 } } as never])).toBe(700);
});

it('goes by whichever layout has got further while shards are split', () => {
  const lsn = (value: number) => value as Lsn;
  const two = { '0of2': lsn(800), '1of2': lsn(700) };
  expect(slowestShard([two, { '0of4': lsn(900), '1of4': lsn(900), '2of4': lsn(900) }])).toBe(700);
  expect(
    slowestShard([two, { '0of4': lsn(900), '1of4': lsn(900), '2of4': lsn(900), '3of4': lsn(750) }]),
  ).toBe(750);
  expect(slowestShard([undefined])).toBe(0);
});

it('is told on the wire as before where there is one', () => {
  expect(packFeedback(at(5, 4)).length).toBe(16);
  expect(readFeedback(packFeedback(at(5, 4)))).toEqual(at(5, 4));
  expect(readFeedback(packFeedback(at(5, 4, 3, 8)))).toEqual(at(5, 4, 3, 8));
});

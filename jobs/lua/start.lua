-- A walker reports for work. in: id, walker, cap, again. out: {what}: 'walk' | 'busy' | 'ended' | 'gone'
local MOST_CRASHES = 3
local r, walkers = K.run .. a.id, key(a.id, 'walkers')
local status = call('HGET', r, 'status')
if not status then return { 'gone' } end
if call('HGET', r, 'spare') == a.walker then call('HDEL', r, 'spare', 'spare_ms') end
if status ~= 'queued' and status ~= 'running' then return { 'ended' } end
if call('HEXISTS', r, 'cancelled_by') == 1 then  -- nobody joins it any more
  call('ZREM', walkers, a.walker)
  end_if_cancelled(a.id)
  return { 'ended' }
end
local taken = status == 'queued' and begin(a.id) or status == 'running' and take_lock(a.id)
if not taken then return { 'busy' } end

-- A walker that is replaced, or whose lease ran out without a farewell, crashed: its pages are free again.
if a.again == 1 then call('ZADD', walkers, 'XX', 0, a.walker) end
local crashed = call('ZRANGEBYSCORE', walkers, '-inf', '(' .. ms(now))
local died = false  -- one that admission named and that never came did not die: the answer was lost on its way
for _, name in ipairs(crashed) do
  call('ZREM', walkers, name)
  if call('HGET', r, 'expected') ~= name then died = true end
  call('HDEL', key(a.id, 'shares'), name)
  local owners = call('HGETALL', key(a.id, 'owners'))
  for i = 1, #owners, 2 do
    if walker_of(owners[i + 1]) == name then
      call('HDEL', key(a.id, 'owners'), owners[i])
      call('ZADD', key(a.id, 'leases'), 0, owners[i])
    end
  end
  if walker_of(call('HGET', r, 'lister') or '') == name then call('HDEL', r, 'lister', 'lister_until') end
end
if died and call('HINCRBY', r, 'crashes', 1) >= MOST_CRASHES then  -- one machine's end is one crash
  finish(a.id, 'failed', 'crashed_3_times', 'Walkers of this run died three times; it is not tried again.')
  return { 'ended' }
end

if call('HGET', r, 'expected') == a.walker then call('HDEL', r, 'expected') end
call('HSETNX', r, 'cap', a.cap)
call('HSETNX', r, 'cursor', a.cap > 0 and call('GET', K.cursor) or '')
call('ZADD', walkers, ms(now + C.lock_ms), a.walker)
call('HSETNX', key(a.id, 'shares'), a.walker, 0)  -- the others make room at once
call('HDEL', key(a.id, 'seconds'), a.walker)  -- who starts again counts from 0
if number(r, 'listed') == 0 or number(r, 'done') < number(r, 'pages') then ensure_job(a.id) end
keep(a.id)
return { 'walk' }

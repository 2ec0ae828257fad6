-- A walker reports for work. in: id, walker, cap, job, iso. out: {what}: 'walk' | 'busy' | 'ended' | 'gone'
local a = cjson.decode(ARGV[1])
local r = K.run .. a.id
local status = call('HGET', r, 'status')
if not status then return { 'gone' } end
if call('HGET', r, 'spare') == a.walker then call('HDEL', r, 'spare', 'spare_ms') end
if FINAL[status] then return { 'ended' } end
if status == 'queued' then
  if not begin(a.id) then return { 'busy' } end
elseif not take_lock(a.id) then
  return { 'busy' }
end

-- A walker that is replaced, or whose lease ran out without a farewell, crashed: its pages are free again.
local crashed = false
for _, name in ipairs(call('ZRANGE', key(a.id, 'walkers'), 0, -1)) do
  local until_ms = tonumber(call('ZSCORE', key(a.id, 'walkers'), name))
  if until_ms < now or (name == a.walker and a.again == 1) then
    crashed = true
    call('ZREM', key(a.id, 'walkers'), name)
    call('HDEL', key(a.id, 'shares'), name)
    local owners = call('HGETALL', key(a.id, 'owners'))
    for i = 1, #owners, 2 do
      if string.sub(owners[i + 1], 1, #name + 1) == name .. '#' then
        call('HDEL', key(a.id, 'owners'), owners[i])
        call('ZADD', key(a.id, 'leases'), 0, owners[i])
      end
    end
    if string.sub(call('HGET', r, 'lister') or '', 1, #name + 1) == name .. '#' then
      call('HDEL', r, 'lister', 'lister_until')
    end
  end
end
if crashed and call('HINCRBY', r, 'crashes', 1) >= C.most_crashes then  -- one machine's end is one crash
  finish(a.id, 'failed', 'crashed_3_times', 'Walkers of this run died three times; it is not tried again.')
  return { 'ended' }
end

call('HSETNX', r, 'cap', a.cap)
call('HSETNX', r, 'cursor', a.cap > 0 and call('GET', K.cursor) or '')
call('ZADD', key(a.id, 'walkers'), ms(now + C.lock_ms), a.walker)
call('HSETNX', key(a.id, 'shares'), a.walker, 0)  -- the others make room at once
if work_left(r) then ensure_job(a.id, a.job, a.iso) end
keep(a.id)
return { 'walk' }

-- What a look at one batch of a run's unverified sites came to. in: id, head (the batch as it was read), results
-- {{site, URL, 'verified' | 'working' | 'stuck' | 'unknown'}}, left (JSON of those to be looked at again, or none);
-- or the end of a look: id, look (the next one's number), wait_ms (until then, if sites are left).
-- out: 1, or 0 when another looked at this batch meanwhile
local list = key(a.id, 'unverified')
if call('EXISTS', K.run .. a.id) == 0 then  -- its record has expired, or all was uninstalled
  call('ZREM', K.follow_up, a.id)
  return 0
end
if a.look and call('EXISTS', list) == 1 then
  call('HSET', K.run .. a.id, 'look', a.look)
  follow_up(a.id, a.wait_ms)
  return 1
elseif a.look then
  call('HSET', K.run .. a.id, 'verification', 'done')
  call('ZREM', K.follow_up, a.id)
  return 1
end
if call('LINDEX', list, 0) ~= a.head then return 0 end
local ended = number(K.run .. a.id, 'ended_ms')
for _, site in ipairs(a.results) do
  if site[3] == 'verified' or site[3] == 'stuck' then note(site[1], site[2], site[3], ended) end
  call('HINCRBY', K.run .. a.id, 'v:' .. site[3], 1)
end
if a.left then call('RPUSH', list, a.left) end
call('LPOP', list)
call('EXPIRE', list, 86400)
follow_up(a.id, C.follow_up_ms)
return 1
